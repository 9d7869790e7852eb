// A relay under test, an agent's sign-in there, and a client of a few lines that knows only OAuth.
import {createHash, randomBytes} from 'node:crypto';
import {mkdirSync} from 'node:fs';
import {join} from 'node:path';
import {Process, output} from './processes.mjs';
import {freePort, scratch, until} from './steps.mjs';

/** An environment in which a program finds no configuration of whoever runs the test, and no screen. */
export const home = (name, more = {}) => {
  const directory = join(scratch, name);
  mkdirSync(directory, {recursive: true});
  return {...process.env, HOME: directory, XDG_STATE_HOME: join(directory, 'state'), XDG_CONFIG_HOME: join(directory, 'config'), DISPLAY: '', WAYLAND_DISPLAY: '', ...more};
};

let relays = 0;

export class Relay {
  /** Starts `program` as a relay with this `auth`, `environment` beside its own; `more` goes into its configuration as it is. */
  static async start(program, auth, {port, environment, ...more} = {}) {
    const relay = new Relay();
    relay.program = program;
    relay.environment = environment;
    relay.name = `relay-${relays += 1}`;
    relay.port = port ?? await freePort();
    relay.base = `http://127.0.0.1:${relay.port}`;
    relay.config = {mode: 'relay', auth, host: '127.0.0.1', port: relay.port, issuerUrl: relay.base, stateDir: join(scratch, relay.name), ...more};
    await relay.run();
    return relay;
  }

  async run() {
    const env = home(this.name, {...this.environment, MCP_LOCAL_TUNNEL_CONFIG: JSON.stringify(this.config)});
    this.process = new Process(this.name, this.program, ['relay'], {env, stdio: ['ignore', 'pipe', 'pipe']});
    await until('relay answers', 20, async () => (await fetch(`${this.base}/readyz`)).ok);
  }

  /** A client's registration and an authorization request of it. */
  async request({redirect = 'http://127.0.0.1:9/callback', ...parameters} = {}) {
    const registered = await fetch(`${this.base}/register`, {
      method: 'POST', headers: {'content-type': 'application/json'},
      body: JSON.stringify({client_name: 'a client of the tests', redirect_uris: [redirect], token_endpoint_auth_method: 'none'}),
    });
    if (registered.status !== 201) throw new Error(`registration: ${registered.status} ${await registered.text()}`);
    const {client_id: client} = await registered.json();
    const verifier = randomBytes(32).toString('base64url');
    const url = new URL(`${this.base}/authorize`);
    const challenge = createHash('sha256').update(verifier).digest('base64url');
    const all = {response_type: 'code', client_id: client, redirect_uri: redirect, code_challenge: challenge, code_challenge_method: 'S256', state: 'of-the-test', ...parameters};
    for (const [name, value] of Object.entries(all)) url.searchParams.set(name, value);
    return {url: url.href, client, redirect, verifier};
  }

  /** Trades what a redirect brought for tokens. */
  async exchange({client, redirect, verifier}, code) {
    const answer = await fetch(`${this.base}/token`, {
      method: 'POST',
      body: new URLSearchParams({grant_type: 'authorization_code', client_id: client, redirect_uri: redirect, code_verifier: verifier, code}),
    });
    if (!answer.ok) throw new Error(`token endpoint: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  /** Signs an agent in with `person`'s browser: who the relay says that it is. */
  async signIn(person, answers) {
    const env = home(`agent-of-${this.name}`);
    const login = new Process('login', this.program, ['login', '--browser', this.base], {env, stdio: ['ignore', 'pipe', 'pipe']});
    const [url] = await login.line(/https?:\/\/\S+\/authorize\?\S+/);
    const back = await person.walk(url, answers, new URL(url).searchParams.get('redirect_uri'));
    const shown = await fetch(back);
    const {code} = await login.exited;
    if (shown.status !== 200 || code !== 0) throw new Error(`login: page ${shown.status}, exit ${code}\n${login.tail()}`);
    return JSON.parse(await output(this.program, ['whoami', '--json', this.base], {env}));
  }
}
