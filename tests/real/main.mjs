// The main job with real parts: a real OpenID provider, the official clients, real servers on two devices.
// Usage: node main.mjs PROGRAM PYTHON    (PROGRAM: the built mcp-local-tunnel; PYTHON: one with mcp and mcp-server-time)
import assert from 'node:assert/strict';
import {writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Client} from '@modelcontextprotocol/sdk/client/index.js';
import {StdioClientTransport} from '@modelcontextprotocol/sdk/client/stdio.js';
import {StreamableHTTPClientTransport} from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {UnauthorizedError} from '@modelcontextprotocol/sdk/client/auth.js';
import {Browser} from './browser.mjs';
import {asListed} from './listed.mjs';
import {Process, output} from './processes.mjs';
import {freePort, run, scratch, step, until} from './steps.mjs';

const [PROGRAM, PYTHON] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const bin = (name) => join(here, 'node_modules', '@modelcontextprotocol', name, 'dist', 'index.js');
writeFileSync(join(scratch, 'hello.txt'), 'hello from the laptop\n');

const SERVERS = {
  everything: [process.execPath, bin('server-everything'), 'stdio'],
  files: [process.execPath, bin('server-filesystem'), scratch],
  time: [PYTHON, '-m', 'mcp_server_time', '--local-timezone', 'UTC'],
};
const DEVICES = {laptop: ['everything', 'files'], desktop: ['time']};
const CALLS = [
  ['everything', 'echo', {message: 'héllo ✓'}],
  ['everything', 'get-sum', {a: 40, b: 2}],
  ['everything', 'get-tiny-image', {}],
  ['everything', 'get-structured-content', {location: 'New York'}],
  ['files', 'read_text_file', {path: join(scratch, 'hello.txt')}],
  ['files', 'read_text_file', {path: '/etc/hostname'}], // refused by the server: an error in band
  ['time', 'convert_time', {source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo'}],
];
const deviceOf = (server) => Object.keys(DEVICES).find((device) => DEVICES[device].includes(server));
const listed = (server, tool) => `${deviceOf(server)}__${server}__${tool}`;

/** What the TypeScript client keeps between its steps; `authorize` holds the URL that a person must open. */
class Login {
  redirectUrl = 'http://127.0.0.1:9/callback';
  clientMetadata = {
    client_name: 'typescript client', redirect_uris: [this.redirectUrl], token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
  };
  clientInformation() { return this.registered; }
  saveClientInformation(value) { this.registered = value; }
  tokens() { return this.saved; }
  saveTokens(value) { this.saved = value; }
  state() { return 'state-of-the-test'; }
  redirectToAuthorization(url) { this.authorize = url.href; }
  saveCodeVerifier(value) { this.verifier = value; }
  codeVerifier() { return this.verifier; }
}

const direct = async (server) => {
  // With what an agent declares: `everything` has some of its tools for such clients alone, a moment after the handshake.
  const capabilities = {roots: {listChanged: true}, sampling: {context: {}, tools: {}}, elicitation: {form: {}, url: {}}};
  const client = new Client({name: 'direct', version: '1'}, {capabilities});
  await client.connect(new StdioClientTransport({command: SERVERS[server][0], args: SERVERS[server].slice(1), stderr: 'ignore'}));
  const {tools} = await until(`all of ${server} is listed`, 20, async () => {
    const listed = await client.listTools();
    return (server !== 'everything' || listed.tools.some(({name}) => name === 'get-roots-list')) && listed;
  });
  const results = {};
  for (const [of, tool, args] of CALLS) {
    if (of === server) results[JSON.stringify([tool, args])] = await client.callTool({name: tool, arguments: args});
  }
  await client.close();
  return {tools, results};
};

const compareTools = (directs, tools) => {
  const byName = new Map(tools.map((tool) => [tool.name, tool]));
  let count = 0;
  for (const [server, {tools: own}] of Object.entries(directs)) {
    for (const tool of own) {
      const through = byName.get(listed(server, tool.name));
      assert.ok(through, `${listed(server, tool.name)} is listed among ${[...byName.keys()].join(', ')}`);
      assert.deepEqual(through, asListed(tool, listed(server, tool.name), server, through));
      count += 1;
    }
  }
  assert.equal(tools.length, count + 2, 'the servers\' tools, status and restart');
  assert.ok(byName.has('status') && byName.has('restart'));
};

const main = async () => {
  const port = await freePort();
  const base = `http://127.0.0.1:${port}`;
  const provider = new Process('provider', process.execPath, [join(here, 'provider.mjs'), `${base}/callback`, 'a provider secret'], {stdio: ['ignore', 'pipe', 'ignore']});
  const [, issuer] = await provider.line(/^(http:\S+)$/);

  const relayConfig = JSON.stringify({mode: 'relay', auth: {issuer, clientSecret: 'a provider secret'}, host: '127.0.0.1', port, issuerUrl: base, stateDir: join(scratch, 'state')});
  const home = (name) => ({...process.env, HOME: join(scratch, name), DISPLAY: '', WAYLAND_DISPLAY: ''});
  const startRelay = async () => {
    const relay = new Process('relay', PROGRAM, [], {env: {...home('relay'), MCP_LOCAL_TUNNEL_CONFIG: relayConfig}, stdio: ['ignore', 'pipe', 'pipe']});
    await until('relay answers', 20, async () => (await fetch(`${base}/readyz`)).ok);
    return relay;
  };
  let relay = await step('relay starts', startRelay);

  const person = new Browser();
  const startAgent = async (device) => {
    const servers = Object.fromEntries(DEVICES[device].map((name) => [name, {command: SERVERS[name]}]));
    const config = JSON.stringify({mode: 'agent', relay: base, name: device, servers});
    const env = {...home(device), MCP_LOCAL_TUNNEL_CONFIG: config};
    const answers = {login: 'ada', password: 'any'};
    // There is no screen: the one is told of a browser on its machine, the other shows a code by itself.
    if (device === 'laptop') {
      const login = new Process(`${device} login`, PROGRAM, ['login', '--browser'], {env, stdio: ['ignore', 'pipe', 'pipe']});
      const [url] = await login.line(/https?:\/\/\S+\/authorize\?\S+/);
      const back = await person.walk(url, answers, new URL(url).searchParams.get('redirect_uri'));
      assert.equal((await fetch(back)).status, 200, 'the program takes the redirect');
      assert.deepEqual(await login.exited, {code: 0, signal: null});
    }
    const agent = new Process(device, PROGRAM, ['agent'], {env, stdio: ['ignore', 'pipe', 'pipe']});
    if (device === 'desktop') {
      const [, url, code] = await agent.line(/(https?:\/\/\S+\/device)\?user_code=(\S+)/);
      const page = await person.walkToEnd(url, {...answers, user_code: code});
      assert.match(page, /Device connected/);
    }
    agent.config = config;
    return agent;
  };
  const agents = {};
  for (const device of Object.keys(DEVICES)) agents[device] = await step(`${device} signs in through the provider`, () => startAgent(device));

  const login = new Login();
  const endpoint = new URL(`${base}/mcp`);
  const connect = async () => {
    const client = new Client({name: 'typescript', version: '1'});
    const transport = new StreamableHTTPClientTransport(endpoint, {authProvider: login});
    try {
      await client.connect(transport);
      return client;
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error;
      const back = await person.walk(login.authorize, {login: 'ada', password: 'any'}, login.redirectUrl);
      assert.equal(back.searchParams.get('state'), 'state-of-the-test');
      assert.equal(back.searchParams.get('iss'), base);
      await transport.finishAuth(back.searchParams.get('code'));
      return connect();
    }
  };
  const client = await step('the TypeScript client signs in through the provider', connect);

  const directs = {};
  for (const server of Object.keys(SERVERS)) directs[server] = await step(`${server} asked directly`, () => direct(server));

  const allTools = () => until('all tools are listed', 60, async () => {
    const {tools} = await client.listTools();
    const names = new Set(tools.map(({name}) => name));
    const missing = Object.entries(directs).flatMap(([server, {tools: own}]) => own.filter(({name}) => !names.has(listed(server, name))));
    return missing.length === 0 && tools;
  });
  await step('every tool equals the direct one but for its name and label', async () => compareTools(directs, await allTools()));
  for (const [server, tool, args] of CALLS) {
    await step(`${server}.${tool} gives the direct result`, async () => {
      const through = await client.callTool({name: listed(server, tool), arguments: args});
      assert.deepEqual(through, directs[server].results[JSON.stringify([tool, args])]);
    });
  }
  await step('progress arrives while a long call runs', async () => {
    let seen = 0;
    const result = await client.callTool(
      {name: listed('everything', 'trigger-long-running-operation'), arguments: {duration: 2, steps: 4}},
      undefined, {onprogress: () => { seen += 1; }});
    assert.match(result.content[0].text, /completed/i);
    assert.ok(seen >= 3, `${seen} progress notifications`);
  });
  await step('an unknown tool is refused by name', async () => {
    await assert.rejects(client.callTool({name: 'laptop__files__no_such', arguments: {}}), /no_such/);
  });

  for (const mode of ['legacy', 'auto']) {
    await step(`the Python client in ${mode} mode signs in, lists and calls the same`, async () => {
      const calls = CALLS.map(([server, tool, args]) => [listed(server, tool), args]);
      const python = new Process('python', PYTHON, [join(here, 'client.py'), endpoint.href, mode]);
      const [, url] = await python.line(/"authorize": "([^"]+)"/);
      const back = await person.walk(url, {login: 'ada', password: 'any'}, login.redirectUrl);
      python.say({callback: back.href});
      python.say({calls});
      const through = JSON.parse((await python.line(/^\{"tools".*/))[0]);
      await python.exited;
      assert.equal(through.tools.length, (await allTools()).length);
      for (const server of Object.keys(SERVERS)) {
        const own = new Process('python direct', PYTHON, [join(here, 'client.py'), '--direct', mode, ...SERVERS[server]], {stdio: ['pipe', 'pipe', 'ignore']});
        own.say({calls: CALLS.filter(([of]) => of === server).map(([, tool, args]) => [tool, args])});
        const {tools, results} = JSON.parse((await own.line(/^\{"tools".*/))[0]);
        for (const tool of tools) {
          const twin = through.tools.find(({name}) => name === listed(server, tool.name));
          assert.deepEqual(twin, asListed(tool, listed(server, tool.name), server, twin));
        }
        assert.deepEqual(through.results.filter((_, index) => CALLS[index][0] === server), results);
        await own.exited;
      }
    });
  }

  const status = async (device) => JSON.parse(await output(PROGRAM, ['status', '--json'], {env: {...home(device), MCP_LOCAL_TUNNEL_CONFIG: agents[device].config}}));
  const pids = async (device) => JSON.stringify((await status(device)).servers.map(({name, pid}) => [name, pid]));
  await step('the relay is killed: agents come back, servers live on, the client goes on without signing in', async () => {
    const before = {laptop: await pids('laptop'), desktop: await pids('desktop')};
    assert.match(before.laptop, /\d{2,}/, 'status names the servers\' processes');
    const token = login.saved.access_token;
    await relay.kill('SIGKILL');
    relay = await startRelay();
    const again = await until('the call works again', 40, () => client.callTool({name: listed('time', 'convert_time'), arguments: CALLS.at(-1)[2]}));
    assert.deepEqual(again, directs.time.results[JSON.stringify(CALLS.at(-1).slice(1))]);
    await allTools();
    assert.equal(login.saved.access_token, token, 'the same token');
    assert.deepEqual({laptop: await pids('laptop'), desktop: await pids('desktop')}, before);
  });
  const processes = async () => (await output('ps', ['-eo', 'pid=,ppid=,args='])).trim().split('\n').map((line) => line.trim().split(/\s+/));
  const under = (all, parent) => all.filter(([, ppid]) => ppid === parent).flatMap(([pid]) => [pid, ...under(all, pid)]);
  const servers = under(await processes(), String(agents.laptop.child.pid));
  await step('a call in flight on a killed agent is answered in under a second', async () => {
    const call = client.callTool({name: listed('everything', 'trigger-long-running-operation'), arguments: {duration: 60, steps: 2}});
    const failed = assert.rejects(call, (error) => /laptop|agent|device/i.test(error.message));
    await new Promise((resolve) => setTimeout(resolve, 500));
    const start = performance.now();
    await agents.laptop.kill('SIGKILL');
    await failed;
    assert.ok(performance.now() - start < 1000, `${performance.now() - start} ms`);
  });
  await step('nothing of a killed agent is left after two seconds', async () => {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    assert.ok(servers.length >= DEVICES.laptop.length, 'they ran before');
    assert.deepEqual((await processes()).filter(([pid]) => servers.includes(pid)), []);
  });
  await client.close();
};

await run(main);
