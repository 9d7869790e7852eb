// The official conformance suite: the relay as an authorization server and against DNS rebinding, the agent's OAuth
// code as a client.
// Usage: node conformance.mjs PROGRAM NODE22
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import {mkdirSync, symlinkSync} from 'node:fs';
import {dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Browser} from './browser.mjs';
import {Process, output} from './processes.mjs';
import {Relay, home} from './relay.mjs';
import {freePort, run, scratch, step} from './steps.mjs';
import {SUITE, checks, conformance as begin, startProxy} from './suite.mjs';

const [PROGRAM, NODE22] = process.argv.slice(2).map((path) => resolve(path));
const here = dirname(fileURLToPath(import.meta.url));
const PERSON = {user: 'ada', password: 'correct horse battery'};

/** Begins a part of the suite; its results go to a directory of that name. */
const conformance = (name, args, env) => begin(NODE22, name, args, env);

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

/** A directory whose `xdg-open` is a person who never hesitates. */
const shim = join(scratch, 'shim');
mkdirSync(shim);
symlinkSync(join(here, 'person.mjs'), join(shim, 'xdg-open'));

const probeItself = (relay) => step('the probe signs in at the relay, lists its tools, and leaves no token', async () => {
  const env = home('probe', {DISPLAY: ':0', PATH: `${shim}:${process.env.PATH}`, TUNNEL_PERSON: JSON.stringify(PERSON)});
  const probe = new Process('probe', PROGRAM, ['probe', '--json', '--call', 'status', `${relay.base}/mcp`], {env, stdio: ['ignore', 'pipe', 'pipe']});
  assert.equal((await probe.exited).code, 0, probe.tail());
  const report = JSON.parse(probe.lines.slice(probe.lines.indexOf('{'), probe.lines.indexOf('}') + 1).join('\n'));
  assert.deepEqual([report.tools.sort(), report.call, report.signIn.issuer], [['restart', 'status'], true, relay.base]);
  const lines = relay.process.lines.join('\n');
  const [, client] = lines.match(/signed in user=\S+ client=(\S+)(?![^]*signed in)/);
  assert.ok(lines.includes(`client=${client}`) && new RegExp(`tokens revoked .*client=${client}$`, 'm').test(lines), lines);
});

/** The scenarios of its suite `auth`. */
const IN_SUITE = [
  'basic-cimd', 'metadata-default', 'metadata-var1', 'metadata-var2', 'metadata-var3', 'pre-registration', 'scope-from-scopes-supported',
  'scope-from-www-authenticate', 'scope-omitted-when-undefined', 'scope-retry-limit', 'scope-step-up', 'token-endpoint-auth-basic',
  'token-endpoint-auth-none', 'token-endpoint-auth-post',
];
/** Every scenario about a client's authorization that the suite has, outside of its suite `auth`. */
const CLIENT_SCENARIOS = [
  '2025-03-26-oauth-metadata-backcompat', 'authorization-server-migration', 'iss-normalized', 'iss-not-advertised', 'iss-supported',
  'iss-supported-missing', 'iss-unexpected', 'iss-wrong-issuer', 'metadata-issuer-mismatch', 'offline-access-not-supported',
  'offline-access-scope', 'resource-mismatch',
];
const UNATTENDED = 'a grant without a person: for machines there are tokens that the operator mints';
const PROOFS = 'an extension that no client of a relay speaks; tokens are short-lived and bound to their audience instead';
/** What the client deliberately lacks: why, and the checks that say so. */
const CLIENT_LACKS = {
  '2025-03-26-oauth-endpoint-fallback': ['guessing endpoints: without metadata nothing promises PKCE with S256', ['authorization-request', 'client-registration', 'token-request']],
  'client-credentials-basic': [UNATTENDED, ['client-credentials-basic-auth', 'client-credentials-grant-type']],
  'client-credentials-jwt': [UNATTENDED, ['client-credentials-jwt-verified']],
  'enterprise-managed-authorization': [UNATTENDED, ['complete-flow-jwt-bearer', 'complete-flow-token-exchange']],
  'wif-jwt-bearer': [UNATTENDED, ['wif-assertion-verified']],
  'dpop': [PROOFS, ['sep-1932-client-dpop-auth-scheme', 'sep-1932-client-fresh-proof', 'sep-1932-client-token-request-proof']],
  'dpop-nonce': [PROOFS, ['sep-1932-client-as-nonce', 'sep-1932-client-dpop-auth-scheme', 'sep-1932-client-fresh-proof', 'sep-1932-client-rs-nonce', 'sep-1932-client-token-request-proof']],
};

/** The suite with `probe` as its client; the browser that it opens is a person who never hesitates. */
const asClient = async (name, ...args) => {
  const suite = conformance(name, ['client', '--command', join(here, 'probe.mjs'), '--timeout', '60000', ...args],
    {TUNNEL_BIN: PROGRAM, DISPLAY: ':0', PATH: `${shim}:${process.env.PATH}`});
  await suite.exited;
  const made = checks(name);
  assert.ok(made.some(({status}) => status !== 'INFO'), `${name}: no check was made\n${suite.tail()}`);
  return made.filter(({status}) => !['SUCCESS', 'INFO'].includes(status));
};

const client = async () => {
  await step('every scenario for clients is known here', async () => {
    const own = await output(NODE22, [SUITE, 'list']);
    const found = [...own.matchAll(/^  - auth\/(\S+)/gm)].map(([, name]) => name);
    const inSuite = found.filter((name) => !CLIENT_SCENARIOS.includes(name) && !(name in CLIENT_LACKS));
    assert.deepEqual(inSuite.sort(), IN_SUITE);
  });
  for (const version of ['2025-11-25', '2026-07-28']) {
    await step(`the agent's OAuth code passes the suite for clients in ${version}`, async () => {
      const poor = await asClient(`client-${version}`, '--suite', 'auth', '--spec-version', version);
      assert.deepEqual(poor.map(({scenario, id, errorMessage, description}) => [scenario, id, errorMessage ?? description]), []);
      const ran = new Set(checks(`client-${version}`).map(({scenario}) => scenario.match(/auth.(.*?)-20\d\d-\d\d-\d\dT/)[1]));
      assert.deepEqual([...ran].sort(), IN_SUITE);
    });
  }
  const all = [...CLIENT_SCENARIOS.map((name) => [name, ['', []]]), ...Object.entries(CLIENT_LACKS)];
  // Two at a time: each starts a few processes.
  const next = async () => {
    for (let one; (one = all.shift());) {
      const [name, [why, expected]] = one;
      await step(why ? `not for this client: ${name} (${why})` : `the same: ${name}`, async () => {
        const poor = await asClient(name, '--scenario', `auth/${name}`);
        assert.deepEqual(poor.map(({id}) => id).sort(), expected, JSON.stringify(poor.map(({id, errorMessage, description}) => [id, errorMessage ?? description]), null, 1));
      });
    }
  };
  await Promise.all([next(), next()]);
};

await run(async () => {
  const {stdout: passwordHash} = spawnSync(PROGRAM, ['hash-password'], {input: `${PERSON.password}\n`, encoding: 'utf8'});
  const auth = {local: {users: [{name: PERSON.user, passwordHash: passwordHash.trim()}]}};
  const relay = await Relay.start(PROGRAM, auth);
  await authorizationServer(relay);
  await rebinding(auth);
  await probeItself(relay);
  await client();
});
