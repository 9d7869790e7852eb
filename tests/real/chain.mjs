#!/usr/bin/env node
// The client that the conformance suite tests: an official one that does what the suite's scenario needs of it, with
// the suite's server directly or with an agent and a relay in between.
// Usage: chain.mjs (--direct | --relay ADDRESS) [--client v1|v2] URL
// The revision is the suite's, and so is the client unless --client says otherwise: v1 up to 2025-11-25, v2 from then
// on. With --relay the program is TUNNEL_BIN; TUNNEL_AGENT_TOKEN and TUNNEL_CLIENT_TOKEN are for the relay at ADDRESS.
import assert from 'node:assert/strict';
import {createHash} from 'node:crypto';
import {parseArgs} from 'node:util';
import {startAgent} from './reference.mjs';
import {run} from './steps.mjs';

const {MCP_CONFORMANCE_SCENARIO: scenario, MCP_CONFORMANCE_PROTOCOL_VERSION: revision, MCP_CONFORMANCE_CONTEXT: context} = process.env;
const {positionals: [url], values: options} = parseArgs({
  allowPositionals: true,
  options: {direct: {type: 'boolean'}, relay: {type: 'string'}, client: {type: 'string', default: revision < '2026' ? 'v1' : 'v2'}},
});
/** Seconds; after 30 the suite would end this process alone, and not what it started. */
const PATIENCE = 20;

/** What the user answers to a question. */
let answer = () => ({action: 'accept', content: {}});
const IDENTITY = {name: 'client in a chain', version: '1'};
const CAPABILITIES = {roots: {}, sampling: {}, elicitation: {form: {applyDefaults: true}}};

/** A connected client; each is loaded when it is the one. */
const connect = {
  v1: async (to, requestInit) => {
    const [{Client}, {StreamableHTTPClientTransport}, {ElicitRequestSchema, ResultSchema}] = await Promise.all(
      ['client/index.js', 'client/streamableHttp.js', 'types.js'].map((path) => import(`@modelcontextprotocol/sdk/${path}`)));
    const client = new Client(IDENTITY, {capabilities: CAPABILITIES});
    client.setRequestHandler(ElicitRequestSchema, () => answer());
    const transport = new StreamableHTTPClientTransport(to, {requestInit});
    const send = transport.send.bind(transport);
    // It offers the newest of its revisions, and has no setting for another.
    transport.send = (message, ...more) => send(message.method === 'initialize' && revision < '2026'
      ? {...message, params: {...message.params, protocolVersion: revision}} : message, ...more);
    await client.connect(transport);
    client.any = (method) => client.request({method, params: {}}, ResultSchema);
    return client;
  },
  v2: async (to, requestInit) => {
    const {Client, StreamableHTTPClientTransport, specTypeSchemas} = await import('@modelcontextprotocol/client');
    const client = new Client(IDENTITY, {capabilities: CAPABILITIES, versionNegotiation: {mode: 'auto'}});
    client.setRequestHandler('elicitation/create', () => answer());
    await client.connect(new StreamableHTTPClientTransport(to, {requestInit}));
    assert.equal(client.getNegotiatedProtocolVersion(), '2026-07-28');
    client.any = (method) => client.request({method, params: {}}, specTypeSchemas.Result);
    return client;
  },
};

const tool = async (client, wanted) => (await client.listTools()).tools.find(({name}) => name === wanted);
const call = (client, name, args = {}) => client.callTool({name, arguments: args});

const SKILL = 'skill://pdf-processing/SKILL.md';
const list = async (client) => (await client.any('skills/list')).skills;

/** Loads a skill as a careful host does, and returns what is wrong with it; its files are read only if nothing is. */
const load = async (client) => {
  const entry = (await list(client)).find(({uri}) => uri === SKILL);
  const read = async ({uri, digest, size}) => {
    const {contents: [{text}]} = await client.readResource({uri});
    const bytes = Buffer.from(text);
    const wrong = [];
    if (digest !== `sha256:${createHash('sha256').update(bytes).digest('hex')}`) wrong.push('digest');
    if (size !== bytes.length) wrong.push('size');
    return {text, wrong};
  };
  const [main, ...others] = entry.resources;
  const {text, wrong} = await read(main);
  const frontmatter = Object.fromEntries([...text.split('---')[1].matchAll(/^(\w+): (.*)$/gm)].map(([, name, value]) => [name, value]));
  if (JSON.stringify(frontmatter) !== JSON.stringify(entry.frontmatter)) wrong.push('frontmatter');
  if (wrong.length === 0) for (const other of others) await read(other);
  return wrong;
};

/** What a client does in each scenario. */
const SCENARIOS = {
  initialize: (client) => client.listTools(),
  tools_call: async (client) => {
    assert.ok(await tool(client, 'add_numbers'));
    const {content} = await call(client, 'add_numbers', {a: 2, b: 3});
    assert.equal(content[0].text, 'The sum of 2 and 3 is 5');
  },
  'elicitation-sep1034-client-defaults': async (client) => {
    const {content} = await call(client, 'test_client_elicitation_defaults');
    assert.match(content[0].text, /^Elicitation completed: /);
  },
  'sse-retry': async (client) => {
    const {content} = await call(client, 'test_reconnection');
    assert.equal(content[0].text, 'Reconnection test completed successfully');
  },
  'request-metadata': (client) => client.listTools(),
  'sep-2322-client-request-state': async (client) => {
    await client.listTools();
    answer = async () => {
      await call(client, 'test_mrtr_unrelated');
      return {action: 'accept', content: {confirmed: true}};
    };
    const said = async (name) => (await call(client, name)).content[0].text;
    assert.equal(await said('test_mrtr_echo_state'), 'echo-state-ok');
    assert.equal(await said('test_mrtr_no_state'), 'no-state-ok');
    // Such a result v2 takes for none: no modern server may leave its type out. v1 knows no types.
    const untyped = await said('test_mrtr_no_result_type').catch(({code}) => code);
    assert.equal(untyped, options.client === 'v2' ? 'INVALID_RESULT' : 'no-result-type-test-ok');
  },
  'http-standard-headers': async (client) => {
    for (const {name} of (await client.listTools()).tools) await call(client, name);
    for (const {uri} of (await client.listResources()).resources) await client.readResource({uri});
    await client.listResourceTemplates();
    for (const {name} of (await client.listPrompts()).prompts) await client.getPrompt({name});
  },
  'http-custom-headers': async (client) => {
    await client.listTools();
    for (const {name, arguments: args} of JSON.parse(context).toolCalls) await call(client, name, args);
  },
  'http-invalid-tool-headers': async (client) => {
    for (const {name} of (await client.listTools()).tools) await call(client, name, {region: 'here'});
  },
  'json-schema-ref-no-deref': (client) => client.listTools(),
  'json-schema-2020-12-preservation': async (client) => {
    const {inputSchema} = await tool(client, 'json_schema_2020_12_tool');
    await call(client, 'json_schema_echo', {schema: inputSchema});
  },
  'sep-2640-client-no-prefetch': async (client) => assert.equal((await list(client)).length, 1),
  'sep-2640-client-verify-digest': async (client) => assert.deepEqual(await load(client), ['digest']),
  'sep-2640-client-verify-size': async (client) => assert.deepEqual(await load(client), ['digest', 'size']),
  'sep-2640-client-verify-frontmatter': async (client) => assert.deepEqual(await load(client), ['frontmatter']),
};

const main = async () => {
  assert.ok(options.direct || options.relay, '--direct or --relay');
  assert.ok(SCENARIOS[scenario], `nothing is known of ${scenario}`);
  let [to, headers] = [new URL(url), {}];
  if (options.relay) {
    const {TUNNEL_BIN: program, TUNNEL_AGENT_TOKEN: token, TUNNEL_CLIENT_TOKEN: clientToken} = process.env;
    // A device of its own: runs are side by side.
    const name = `device-${process.pid}`;
    await startAgent(program, options.relay, token, {suite: {url}}, {name, seconds: PATIENCE / 2});
    to = new URL(`${options.relay}/mcp/${name}/suite`);
    headers = {authorization: `Bearer ${clientToken}`};
  }
  const client = await connect[options.client](to, {headers});
  await SCENARIOS[scenario](client);
  await client.close();
};

await run(() => Promise.race([
  main(),
  new Promise((_, reject) => { setTimeout(() => reject(new Error('not over in time')), 1000 * PATIENCE); }),
]));
