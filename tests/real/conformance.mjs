// The official conformance suite: the relay as an authorization server and against DNS rebinding, the agent's OAuth
// code as a client.
// Usage: node conformance.mjs PROGRAM NODE22
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {readFileSync, readdirSync} from 'node:fs';
import http from 'node:http';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Browser} from './browser.mjs';
import {Process} from './processes.mjs';
import {Relay, home} from './relay.mjs';
import {freePort, run, scratch, step} from './steps.mjs';

const [PROGRAM, NODE22] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const PERSON = {user: 'ada', password: 'correct horse battery'};
const SUITE = join(here, 'node_modules', '@modelcontextprotocol', 'conformance', 'dist', 'index.js');

/** Begins a part of the suite; its results go to a directory of that name. */
const conformance = (name, args, env = {}) =>
  new Process(name, NODE22, [SUITE, ...args, '--output-dir', join(scratch, name)], {cwd: scratch, env: home('conformance', env), stdio: ['ignore', 'pipe', 'pipe']});

/** Every check that the suite made, by the scenario's directory. */
const checks = (name) => readdirSync(join(scratch, name), {recursive: true})
  .filter((path) => path.endsWith('checks.json'))
  .flatMap((path) => JSON.parse(readFileSync(join(scratch, name, path), 'utf8')).map((check) => ({scenario: dirname(path), ...check})));

/** A proxy that adds `token` to what it passes on, for a suite that has none to send. Host and Origin stay theirs. */
const startProxy = async (port, token) => {
  const proxy = http.createServer((request, response) => {
    const headers = {...request.headers, authorization: `Bearer ${token}`};
    const onward = http.request({host: '127.0.0.1', port, method: request.method, path: request.url, headers}, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    request.pipe(onward);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return proxy.address().port;
};

const authorizationServer = (relay) => step('the relay passes the suite for authorization servers', async () => {
  const port = await freePort();
  const {client} = await relay.request({redirect: `http://127.0.0.1:${port}/callback`});
  const suite = conformance('authorization', ['authorization', '--url', relay.base, '--client-id', client, '--resource', `${relay.base}/mcp`, '--port', String(port)]);
  const [url] = await suite.line(/^http\S+\/authorize\?\S+/);
  await new Browser().open(url, PERSON);
  assert.equal((await suite.exited).code, 0, suite.tail());
  const made = checks('authorization');
  assert.deepEqual([...new Set(made.map(({id}) => id))].sort(), ['authorization-code-grant', 'authorization-server-metadata', 'authorization-server-metadata-cimd']);
  const poor = made.filter(({status}) => status !== 'SUCCESS').map(({id, errorMessage}) => `${id}: ${errorMessage}`);
  assert.deepEqual(poor, []);
});

const rebinding = (auth) => step('the relay passes the suite for DNS rebinding', async () => {
  // Without a public URL it is this machine's alone, as the suite wants it: loopback names pass on any port.
  const relay = await Relay.start(PROGRAM, auth, {issuerUrl: undefined});
  relay.base = `http://localhost:${relay.port}`;
  const request = await relay.request();
  const back = await new Browser().walk(request.url, PERSON, request.redirect);
  const {access_token: token} = await relay.exchange(request, back.searchParams.get('code'));
  const port = await startProxy(relay.port, token);
  const suite = conformance('rebinding', ['server', '--url', `http://localhost:${port}/mcp`, '--scenario', 'dns-rebinding-protection']);
  await suite.exited;
  const found = checks('rebinding').map(({id, status, errorMessage}) => [id, status, errorMessage].filter(Boolean).join(': '));
  assert.deepEqual(found, ['localhost-host-rebinding-rejected: SUCCESS', 'localhost-host-valid-accepted: SUCCESS']);
});

await run(async () => {
  const {stdout: passwordHash} = spawnSync(PROGRAM, ['hash-password'], {input: `${PERSON.password}\n`, encoding: 'utf8'});
  const auth = {local: {users: [{name: PERSON.user, passwordHash: passwordHash.trim()}]}};
  await authorizationServer(await Relay.start(PROGRAM, auth));
  await rebinding(auth);
});
