// The relay at real OpenID providers: friendly, odd and evil ones.
// Usage: node providers.mjs PROGRAM PYTHON    (PROGRAM: the built mcp-local-tunnel; PYTHON: one that has canaille)
import assert from 'node:assert/strict';
import {createHmac, generateKeyPairSync, sign} from 'node:crypto';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {OAuth2Server} from 'oauth2-mock-server';
import {Browser, decode} from './browser.mjs';
import {startCanaille} from './canaille.mjs';
import {Process} from './processes.mjs';
import {Relay} from './relay.mjs';
import {freePort, run, step, until} from './steps.mjs';

const [PROGRAM, PYTHON] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const CLIENT = 'mcp-local-tunnel';
const SECRET = 'a secret: of the relay%+&';

/** Starts the provider of `provider.mjs`; the port is free, or was of one that has ended. */
const startProvider = async (callback, secret = '', method = '', port = 0) => {
  const provider = new Process('provider', process.execPath, [join(here, 'provider.mjs'), callback, secret, method, String(port)], {stdio: ['ignore', 'pipe', 'pipe']});
  [, provider.issuer] = await provider.line(/^(http:\S+)$/);
  return provider;
};
const person = {login: 'ada', password: 'any'};

/** A client's whole way: its tokens. */
const signIn = async (relay, answers = person) => {
  const request = await relay.request();
  const back = await new Browser().walk(request.url, answers, request.redirect);
  const code = back.searchParams.get('code');
  assert.ok(code, back.href);
  return relay.exchange(request, code);
};

/** A way that must end on a page of the relay: a sentence for the person, an OAuth error for the client, no code. */
const refused = async (relay, {says, error = 'server_error', status = 502}) => {
  const request = await relay.request();
  const end = await new Browser().open(request.url, person, request.redirect);
  assert.equal(end.status, status, `${end.url}\n${end.page?.replace(/<style>[^]*<.style>/, '')}`);
  assert.match(end.page, says);
  assert.match(end.page, /<html lang="en">[^]*<h1>[^]*role="alert"/);
  const links = [...end.page.matchAll(/href="([^"]+)"/g)].map(([, link]) => new URL(decode(link)));
  const back = links.find((link) => link.href.startsWith(request.redirect));
  assert.ok(back, end.page);
  assert.deepEqual(Object.fromEntries(back.searchParams), {error, state: 'of-the-test', iss: relay.base});
  return end;
};

const oidcProvider = async () => {
  for (const [name, secret, method] of [['public', '', ''], ['basic', SECRET, 'client_secret_basic'], ['post', SECRET, 'client_secret_post']]) {
    await step(`oidc-provider: a ${name} client signs a person in`, async () => {
      const port = await freePort();
      const {issuer} = await startProvider(`http://127.0.0.1:${port}/callback`, secret, method);
      const relay = await Relay.start(PROGRAM, secret ? {issuer, clientSecret: secret} : {issuer}, {port});
      const me = await relay.signIn(new Browser(), person);
      assert.equal(me.user, `${issuer}#ada`);
      assert.ok((await signIn(relay)).refresh_token);
    });
  }
  await step('oidc-provider: a wrong client secret reaches person and client as an error', async () => {
    const port = await freePort();
    const {issuer} = await startProvider(`http://127.0.0.1:${port}/callback`, SECRET, 'client_secret_basic');
    const relay = await Relay.start(PROGRAM, {issuer, clientSecret: 'another'}, {port});
    const {page} = await refused(relay, {says: /refuses this relay's `auth\.clientId` or `auth\.clientSecret`/});
    assert.doesNotMatch(page, /another/);
  });
  await step('a provider that is down at the relay\'s start is used when it is there', async () => {
    const [port, providerPort] = [await freePort(), await freePort()];
    const relay = await Relay.start(PROGRAM, {issuer: `http://127.0.0.1:${providerPort}`}, {port});
    await refused(relay, {says: /cannot be reached/, error: 'temporarily_unavailable', status: 503});
    await startProvider(`http://127.0.0.1:${port}/callback`, '', '', providerPort);
    assert.ok((await signIn(relay)).access_token);
  });
};

/** Begins a rotation of the provider's keys; the answer ends it. A key is fetched again a minute later at the earliest. */
const rotation = async () => {
  const port = await freePort();
  const callback = `http://127.0.0.1:${port}/callback`;
  const old = await startProvider(callback);
  const relay = await Relay.start(PROGRAM, {issuer: old.issuer}, {port});
  await signIn(relay);
  const read = Date.now();
  await old.kill('SIGKILL');
  await startProvider(callback, '', '', new URL(old.issuer).port);
  await refused(relay, {says: /its key is unknown/});
  return async () => {
    await until('the new key is known', 70, async () => {
      // Asked now and then only: the relay counts.
      await new Promise((resolve) => setTimeout(resolve, 1000));
      return Date.now() - read > 58_000 && (await signIn(relay)).access_token;
    });
    assert.ok(Date.now() - read > 59_000, 'once a minute');
  };
};

const canaille = () => step('Canaille signs a person in, with nonce and password', async () => {
  const port = await freePort();
  const account = {person: 'ada', password: 'correct horse battery'};
  const issuer = await startCanaille(PYTHON, {callback: `http://127.0.0.1:${port}/callback`, secret: 'of-the-relay', ...account});
  const relay = await Relay.start(PROGRAM, {issuer, clientSecret: 'of-the-relay'}, {port});
  const me = await relay.signIn(new Browser(), {login: 'ada', password: account.password});
  assert.equal(me.user, `${issuer}#ada`);
});

const now = () => Math.floor(Date.now() / 1000);
const base64 = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const foreignKey = generateKeyPairSync('rsa', {modulusLength: 2048}).privateKey;
const parts = (token) => token.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')));
/** The same claims under another header and signature. */
const resigned = (token, header, signature) => {
  const [oldHeader, payload] = parts(token);
  const signed = `${base64({...oldHeader, ...header})}.${base64(payload)}`;
  return `${signed}.${signature(signed)}`;
};

/** What is done to the ID token's claims, or (`answer`) to the token endpoint's whole answer. */
const EVIL = [
  ['no ID token', /there is no ID token/, {answer: (body) => { delete body.id_token; }}],
  ['an ID token for somebody else', /not for this relay alone \(aud\)/, {claims: (claims) => { claims.aud = 'another'; }}],
  ['an ID token for us and somebody else', /not for this relay alone \(aud\)/, {claims: (claims) => { claims.aud = [CLIENT, 'another']; claims.azp = CLIENT; }}],
  ['an ID token of another issuer', /another provider's \(iss\)/, {claims: (claims) => { claims.iss = 'http://127.0.0.1:9'; }}],
  ['an ID token of another login', /another login \(nonce\)/, {claims: (claims) => { claims.nonce = 'another'; }}],
  ['an ID token without nonce', /another login \(nonce\)/, {claims: (claims) => { delete claims.nonce; }}],
  ['an ID token issued to another client', /another client \(azp\)/, {claims: (claims) => { claims.azp = 'another'; }}],
  ['an expired ID token', /has expired \(exp\)/, {claims: (claims) => { claims.exp = now() - 75; }}],
  ['an ID token that is not valid yet', /not valid yet \(nbf\)/, {claims: (claims) => { claims.nbf = now() + 300; }}],
  ['an ID token issued in the future', /in the future \(iat\)/, {claims: (claims) => { claims.iat = now() + 300; }}],
  ['an ID token without signature', /not signed/, {answer: (body) => { body.id_token = resigned(body.id_token, {alg: 'none'}, () => ''); }}],
  ['an ID token that names no algorithm and has a signature', /algorithm is not allowed|not signed|cannot be read|breaks a rule/, {answer: (body) => { body.id_token = resigned(body.id_token, {alg: 'none'}, () => 'AAAA'); }}],
  ['an ID token with another key behind our provider\'s key id', /signature is wrong/, {answer: (body) => { body.id_token = resigned(body.id_token, {}, (signed) => sign('sha256', Buffer.from(signed), foreignKey).toString('base64url')); }}],
  ['an ID token signed with the public key as a password', /algorithm is not allowed/, {answer: (body, jwks) => { body.id_token = resigned(body.id_token, {alg: 'HS256'}, (signed) => createHmac('sha256', jwks).update(signed).digest('base64url')); }}],
  ['claims changed after signing', /signature is wrong/, {answer: (body) => {
    const [header, payload, signature] = body.id_token.split('.');
    body.id_token = `${header}.${base64({...JSON.parse(Buffer.from(payload, 'base64url')), sub: 'eve'})}.${signature}`;
  }}],
];
const ODD = [
  ['nothing odd', () => {}],
  ['updated_at in RFC 3339', (claims) => { claims.updated_at = '2026-01-02T03:04:05Z'; }],
  ['booleans as strings', (claims) => { Object.assign(claims, {email: 'ada@example.org', email_verified: 'true', phone_number_verified: 'false'}); }],
  ['an audience in a list', (claims) => { claims.aud = [CLIENT]; claims.azp = CLIENT; }],
  ['a clock that is 50 s behind', (claims) => { claims.exp = now() - 50; claims.iat = now() - 3_650; }],
  ['a clock that is 50 s ahead', (claims) => { claims.nbf = now() + 50; claims.iat = now() + 50; }],
];

/** A provider of loose habits. `edit` is what it does with the next answers. */
const startMock = async (algorithm = 'RS256') => {
  const mock = new OAuth2Server();
  await mock.issuer.keys.generate(algorithm);
  const port = await freePort();
  mock.issuer.url = `http://127.0.0.1:${port}`;
  await mock.start(port, '127.0.0.1');
  mock.edit = {};
  const isIdToken = ({aud, scope}) => aud !== undefined && scope === undefined;
  mock.service.on('beforeTokenSigning', ({payload}) => { if (isIdToken(payload)) mock.edit.claims?.(payload); });
  mock.service.on('beforeResponse', ({body}) => mock.edit.answer?.(body, JSON.stringify(mock.issuer.keys.toJSON())));
  return mock;
};

const mockServer = async () => {
  const mock = await startMock();
  const relay = await Relay.start(PROGRAM, {issuer: mock.issuer.url});
  for (const [name, claims] of ODD) {
    mock.edit = {claims};
    await step(`taken: ${name}`, async () => assert.ok((await signIn(relay)).access_token));
  }
  for (const [name, says, edit] of EVIL) {
    mock.edit = edit;
    await step(`refused: ${name}`, () => refused(relay, {says}));
  }
  mock.edit = {};
  await step('and then the same relay takes an honest login', async () => assert.ok((await signIn(relay)).access_token));
  await step('no token of the provider is in the relay\'s log', async () => {
    assert.doesNotMatch(relay.process.lines.join('\n'), /eyJ/);
  });

  const byEmail = await Relay.start(PROGRAM, {issuer: mock.issuer.url, userClaim: 'email', scopes: ['openid', 'email']});
  await step('an e-mail address counts when its verification is the string "true", and not when it is "false"', async () => {
    mock.edit = {claims: (claims) => { Object.assign(claims, {email: 'ada@example.org', email_verified: 'true'}); }};
    assert.equal((await byEmail.signIn(new Browser(), person)).user, `${mock.issuer.url}#ada@example.org`);
    mock.edit = {claims: (claims) => { Object.assign(claims, {email: 'ada@example.org', email_verified: 'false'}); }};
    await refused(byEmail, {says: /has not verified/, error: 'access_denied', status: 403});
  });
  for (const algorithm of ['PS256', 'ES256', 'EdDSA']) {
    await step(`taken: an ID token signed with ${algorithm}`, async () => {
      const other = await startMock(algorithm);
      assert.ok((await signIn(await Relay.start(PROGRAM, {issuer: other.issuer.url}))).access_token);
    });
  }
  await step('refused: a discovery document of another issuer', async () => {
    const foreign = await startMock();
    const ours = foreign.issuer.url;
    const tricked = await Relay.start(PROGRAM, {issuer: ours});
    foreign.issuer.url = 'http://127.0.0.1:9';
    await refused(tricked, {says: /cannot be used/});
    foreign.issuer.url = `${ours}/`;
    await refused(tricked, {says: /cannot be used/});
  });
};

await run(async () => {
  const finishRotation = await step('a key that the provider did not have a moment ago is unknown', rotation);
  await oidcProvider();
  await canaille();
  await mockServer();
  await step('a minute after the keys were read, the provider\'s new key is fetched', finishRotation);
});
