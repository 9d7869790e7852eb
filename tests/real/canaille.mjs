// Canaille, a whole identity provider with accounts and passwords, on loopback and in a directory of its own.
import {mkdirSync, writeFileSync} from 'node:fs';
import {dirname, join} from 'node:path';
import {Process, output} from './processes.mjs';
import {freePort, scratch, until} from './steps.mjs';

/** Starts it with one person and the relay as a client: its issuer. `python` is the one that it is installed for. */
export const startCanaille = async (python, {callback, secret, person, password}) => {
  const program = join(dirname(python), 'canaille');
  const directory = join(scratch, 'canaille');
  mkdirSync(directory);
  const port = await freePort();
  const env = {...process.env, CANAILLE_CONFIG: join(directory, 'canaille.toml'), HOME: directory};
  const canaille = (...args) => output(program, args, {cwd: directory, env});
  const key = JSON.parse(await output(program, ['jwk', 'create', 'rsa'], {cwd: directory, env: {...process.env, HOME: directory}}));
  const jwk = Object.entries(key).map(([name, value]) => `${name} = ${JSON.stringify(value)}`).join(', ');
  // REQUIRE_NONCE stays what it is by default: true.
  writeFileSync(env.CANAILLE_CONFIG, `SECRET_KEY = "only for tests"
SERVER_NAME = "127.0.0.1:${port}"
PREFERRED_URL_SCHEME = "http"
[CANAILLE]
[CANAILLE_SQL]
DATABASE_URI = "sqlite:///${join(directory, 'db.sqlite')}"
[CANAILLE_OIDC]
ENABLE_OIDC = true
ACTIVE_JWKS = [{${jwk}}]
`);
  await canaille('install');
  await canaille('create', 'user', '--user-name', person, '--password', password, '--emails', `${person}@example.org`, '--family-name', 'Lovelace');
  await canaille('create', 'client', '--client-id', 'mcp-local-tunnel', '--client-secret', secret, '--redirect-uris', callback,
    '--token-endpoint-auth-method', 'client_secret_basic', '--grant-types', 'authorization_code', '--response-types', 'code',
    '--client-name', 'relay', '--scope', 'openid profile email', '--client-uri', 'http://127.0.0.1');
  // As its pages and its registration do; without it, its ID tokens are for nobody.
  await canaille('set', 'client', 'mcp-local-tunnel', '--audience', 'mcp-local-tunnel');
  const issuer = `http://127.0.0.1:${port}`;
  new Process('canaille', program, ['run', '--bind', `127.0.0.1:${port}`], {cwd: directory, env, stdio: ['ignore', 'pipe', 'pipe']});
  await until('canaille answers', 40, async () => (await fetch(`${issuer}/.well-known/openid-configuration`)).ok);
  return issuer;
};
