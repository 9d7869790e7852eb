// Other people's OAuth clients sign in at the relay, with nobody at the screen.
// Usage: node clients.mjs PROGRAM NODE22    (NODE22: a Node.js of version 22 or later, which some of them need)
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {readFileSync} from 'node:fs';
import https from 'node:https';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {OAuthConformanceTest} from '@mcpjam/sdk';
import {Client} from '@modelcontextprotocol/sdk/client/index.js';
import {StdioClientTransport} from '@modelcontextprotocol/sdk/client/stdio.js';
import * as oauth from 'oauth4webapi';
import {Browser} from './browser.mjs';
import {Process, output} from './processes.mjs';
import {Relay, home} from './relay.mjs';
import {freePort, run, scratch, step} from './steps.mjs';

const [PROGRAM, NODE22] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const module = (...path) => join(here, 'node_modules', ...path);
const PERSON = {user: 'ada', password: 'correct horse battery'};
const personal = (name) => home(name, {BROWSER: join(here, 'person.mjs'), TUNNEL_PERSON: JSON.stringify(PERSON)});
const SECRET = 'a secret of the operator';
const OWN_TOOLS = ['restart', 'status'];
const names = (tools) => tools.map(({name}) => name).sort();

const mcpRemote = (relay) => step('mcp-remote signs in, lists and calls; the next one needs nobody', async () => {
  const connect = async (env) => {
    const client = new Client({name: 'editor', version: '1'});
    const args = [module('mcp-remote', 'dist', 'proxy.js'), `${relay.base}/mcp`];
    await client.connect(new StdioClientTransport({command: process.execPath, args, env, stderr: 'ignore'}), {timeout: 60_000});
    assert.deepEqual(names((await client.listTools()).tools), OWN_TOOLS);
    const {content} = await client.callTool({name: 'status', arguments: {}});
    assert.match(content[0].text, /device/i);
    await client.close();
  };
  await connect(personal('mcp-remote'));
  // Whoever would be asked now could not answer.
  await connect({...personal('mcp-remote'), BROWSER: '/bin/false', TUNNEL_PERSON: '{}'});
});

const inspector = (relay) => step('the Inspector\'s command line signs in, lists and calls', async () => {
  const env = {...personal('inspector'), MCP_AUTO_OPEN_ENABLED: 'true', MCP_INSPECTOR_SECRET_STORE: 'file', MCP_OAUTH_CALLBACK_URL: `http://127.0.0.1:${await freePort()}/oauth/callback`};
  const inspect = async (...args) => {
    const target = ['--server-url', `${relay.base}/mcp`, '--transport', 'http', '--format', 'json', '--quiet'];
    return JSON.parse(await output(NODE22, [module('@modelcontextprotocol', 'inspector', 'clients', 'cli', 'build', 'index.js'), ...target, ...args], {env}));
  };
  const {result} = await inspect('--method', 'tools/list');
  assert.deepEqual(names(result.tools), OWN_TOOLS);
  const called = await inspect('--method', 'tools/call', '--tool-name', 'status', '--stored-auth-only');
  assert.match(JSON.stringify(called), /device/i);
});

const strict = async (relay) => {
  const insecure = {[oauth.allowInsecureRequests]: true};
  const issuer = new URL(relay.base);
  const redirect = 'http://127.0.0.1:9/callback';
  const as = await step('oauth4webapi takes both discovery documents', async () => {
    const resource = new URL(`${relay.base}/mcp`);
    const described = await oauth.processResourceDiscoveryResponse(resource, await oauth.resourceDiscoveryRequest(resource, insecure));
    assert.deepEqual(described.authorization_servers, [relay.base]);
    const answer = await oauth.discoveryRequest(issuer, {algorithm: 'oauth2', ...insecure});
    return oauth.processDiscoveryResponse(issuer, answer);
  });
  for (const method of ['none', 'client_secret_basic', 'client_secret_post']) {
    await step(`oauth4webapi goes the whole way as a client of method ${method}`, async () => {
      const metadata = {redirect_uris: [redirect], token_endpoint_auth_method: method, client_name: 'strict'};
      const client = await oauth.processDynamicClientRegistrationResponse(await oauth.dynamicClientRegistrationRequest(as, metadata, insecure));
      const authentication = {
        none: () => oauth.None(),
        client_secret_basic: () => oauth.ClientSecretBasic(client.client_secret),
        client_secret_post: () => oauth.ClientSecretPost(client.client_secret),
      }[method]();
      const [verifier, state] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState()];
      const url = new URL(as.authorization_endpoint);
      const query = {
        client_id: client.client_id, redirect_uri: redirect, response_type: 'code', state, resource: `${relay.base}/mcp`,
        code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
      };
      for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
      const back = await new Browser().walk(url.href, PERSON, redirect);
      // Compares state, and iss since the metadata promises it.
      const callback = oauth.validateAuthResponse(as, client, back, state);
      const tokens = await oauth.processAuthorizationCodeResponse(as, client, await oauth.authorizationCodeGrantRequest(as, client, authentication, callback, redirect, verifier, insecure));
      const fresh = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, authentication, tokens.refresh_token, insecure));
      assert.notEqual(fresh.refresh_token, tokens.refresh_token);
      const list = () => oauth.protectedResourceRequest(fresh.access_token, 'POST', new URL(`${relay.base}/mcp`), new Headers({'content-type': 'application/json', accept: 'application/json, text/event-stream'}),
        JSON.stringify({jsonrpc: '2.0', id: 1, method: 'initialize', params: {protocolVersion: '2025-11-25', capabilities: {}, clientInfo: {name: 'strict', version: '1'}}}), insecure);
      assert.equal((await list()).status, 200);
      await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, authentication, fresh.refresh_token, insecure));
      const refused = await list().then((answer) => answer.status, (error) => error.status);
      assert.equal(refused, 401, 'a revoked sign-in opens nothing');
      await assert.rejects(
        async () => oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, authentication, fresh.refresh_token, insecure)),
        ({error}) => error === 'invalid_grant');
    });
  }
};

/** Serves a client's metadata document over https on this machine. The certificate is made for this run. */
const serveDocument = async (redirect) => {
  const [certificate, key] = ['document.pem', 'document.key'].map((name) => join(scratch, name));
  await output('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', '/CN=localhost',
    '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE', '-keyout', key, '-out', certificate]);
  const server = https.createServer({key: readFileSync(key), cert: readFileSync(certificate)}, (_request, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({
      client_id: document.url, client_name: 'a documented client', redirect_uris: [redirect], token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
    }));
  });
  await new Promise((resolve) => server.listen(0, 'localhost', resolve));
  const document = {certificate, url: `https://localhost:${server.address().port}/client.json`};
  // What a client that looks at its own document fetches with: one that knows the certificate.
  document.fetch = (url, options) => String(url) !== document.url ? fetch(url, options) : new Promise((resolve, reject) => {
    https.get(url, {ca: readFileSync(certificate)}, (answer) => {
      answer.toArray().then((body) => resolve(new Response(Buffer.concat(body), {status: answer.statusCode, headers: answer.headers})), reject);
    }).on('error', reject);
  });
  return document;
};

/** A person's part of a sign-in: it must lead back to the client. */
const agree = async (url) => {
  const {url: end, status, page} = await new Browser().open(url, PERSON);
  assert.equal(status, 200, `${end}\n${page.replace(/<style>[^]*<.style>/, '')}`);
};

const mcpjam = (relay, what, registrationStrategy, redirectUrl, client, fetchFn = fetch) => step(`MCPJam's OAuth conformance test passes: ${what}`, async () => {
  const result = await new OAuthConformanceTest({
    serverUrl: `${relay.base}/mcp`,
    protocolVersion: '2025-11-25',
    registrationStrategy,
    redirectUrl,
    client,
    fetchFn,
    auth: {mode: 'interactive', openUrl: agree},
    verification: {listTools: true, callTool: {name: 'status', params: {}}},
    oauthConformanceChecks: true,
  }).run();
  const poor = result.steps.filter(({status}) => status !== 'passed').map(({step: id, status, error, summary}) => `${id}: ${status} ${error?.message ?? summary}`);
  assert.deepEqual(poor, []);
  assert.ok(result.passed, result.summary);
  assert.ok(result.verification.listTools.passed && result.verification.callTool.passed);
});

await run(async () => {
  const {stdout: passwordHash} = spawnSync(PROGRAM, ['hash-password'], {input: `${PERSON.password}\n`, encoding: 'utf8'});
  const redirect = `http://127.0.0.1:${await freePort()}/callback`;
  const document = await serveDocument(redirect);
  const clients = [
    {id: 'open', name: 'a public client', redirectUris: [redirect]},
    {id: 'closed', name: 'a client with a secret', redirectUris: [redirect], secret: SECRET},
  ];
  const relay = await Relay.start(PROGRAM, {local: {users: [{name: PERSON.user, passwordHash: passwordHash.trim()}]}}, {
    clients, clientDocuments: {allowLoopback: true}, environment: {SSL_CERT_FILE: document.certificate},
  });
  await strict(relay);
  await mcpjam(relay, 'registered', 'dcr', redirect, {});
  await mcpjam(relay, 'with a metadata document', 'cimd', redirect, {clientIdMetadataUrl: document.url}, document.fetch);
  await mcpjam(relay, 'of the configuration', 'preregistered', redirect, {preregistered: {clientId: 'open'}});
  await mcpjam(relay, 'of the configuration, with a secret', 'preregistered', redirect, {preregistered: {clientId: 'closed', clientSecret: SECRET}});
  await mcpRemote(relay);
  await inspector(relay);
});
