// What people see, in a real browser: the relay's pages as somebody with a mouse, a keyboard, a dark screen, no
// JavaScript or a hostile site in the next tab meets them.
// Usage: node pages.mjs PROGRAM CHROMIUM
import assert from 'node:assert/strict';
import {spawnSync} from 'node:child_process';
import http from 'node:http';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {chromium} from 'playwright-core';
import {inspectPage} from './inspect.mjs';
import {Process} from './processes.mjs';
import {Relay, home} from './relay.mjs';
import {freePort, run, step} from './steps.mjs';

const [PROGRAM, CHROMIUM] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const PASSWORD = 'correct horse battery';

/** A program of a person's: it listens on loopback for the answer to its authorization request. */
class LoopbackClient {
  answers = [];
  static async start() {
    const client = new LoopbackClient();
    client.server = http.createServer((request, response) => {
      const url = new URL(request.url, client.redirect);
      if (url.pathname === '/callback') client.answers.push({...Object.fromEntries(url.searchParams), method: request.method, referer: request.headers.referer});
      response.end('<!doctype html><title>client</title><p>the client goes on');
    });
    await new Promise((resolve) => client.server.listen(0, '127.0.0.1', resolve));
    client.redirect = `http://127.0.0.1:${client.server.address().port}/callback`;
    return client;
  }
}

/** A person's browser. Everything that a page of `relay` asks for elsewhere, or complains about, is kept. */
class Person {
  complaints = [];
  static async arrive(browser, relay, options = {}) {
    const person = new Person();
    person.relay = relay;
    person.context = await browser.newContext(options);
    person.context.on('page', (page) => person.#watch(page));
    return person;
  }

  #watch(page) {
    const ours = () => page.url().startsWith(this.relay.base) || page.url() === 'about:blank';
    page.on('console', (message) => { if (ours()) this.complaints.push(`console: ${message.text()}`); });
    page.on('pageerror', (error) => this.complaints.push(`error: ${error.message}`));
    page.on('request', (request) => {
      if (ours() && !request.isNavigationRequest()) this.complaints.push(`loads ${request.url()}`);
    });
  }

  async open(url) {
    const page = await this.context.newPage();
    await page.goto(url);
    return page;
  }

  /** Ends the visit: no page of ours complained, and none loaded anything but itself. */
  async leave() {
    await this.context.close();
    // A browser may ask for an icon; that it is refused is written to the console.
    const serious = this.complaints.filter((text) => !/favicon\.ico|status of 40[034]|status of 502/.test(text));
    assert.deepEqual(serious, []);
  }
}

const logIn = async (page, password = PASSWORD) => {
  await page.getByLabel('User name').fill('ada');
  await page.getByLabel('Password').fill(password);
  await page.getByRole('button', {name: 'Sign in'}).click();
};
const at = (page, title) => page.getByRole('heading', {level: 1, name: title}).waitFor();
const allow = (page) => page.getByRole('button', {name: 'Allow'}).click();
const deny = (page) => page.getByRole('button', {name: 'Deny'}).click();
const answered = async (page, client) => {
  await page.waitForURL(`${client.redirect}**`);
  const {method, referer, ...answer} = client.answers.at(-1);
  assert.equal(method, 'GET');
  assert.equal(referer, undefined, 'the client does not learn where the browser came from');
  return answer;
};

const chain = async (browser) => {
  const port = await freePort();
  const provider = new Process('provider', process.execPath, [join(here, 'provider.mjs'), `http://127.0.0.1:${port}/callback`], {stdio: ['ignore', 'pipe', 'pipe']});
  const [, issuer] = await provider.line(/^(http:\S+)$/);
  const relay = await Relay.start(PROGRAM, {issuer}, {port});
  const client = await LoopbackClient.start();
  await step('consent leads through the provider\'s redirects to a loopback client', async () => {
    const person = await Person.arrive(browser, relay);
    const request = await relay.request({redirect: client.redirect});
    const page = await person.open(request.url);
    await allow(page);
    await page.locator('input[name=login]').fill('ada');
    await page.locator('input[name=password]').fill('any');
    await page.locator('button[type=submit]').click();
    await page.waitForURL((url) => !url.pathname.startsWith('/auth'));
    if (!page.url().startsWith(client.redirect)) await page.locator('button[type=submit]').click();
    const {code, state, iss} = await answered(page, client);
    assert.deepEqual([state, iss], ['of-the-test', relay.base]);
    assert.ok((await relay.exchange(request, code)).access_token);
    await person.leave();
  });
};

const decisions = async (browser, relay, client) => {
  await step('denied: the client is told, and gets no code', async () => {
    const person = await Person.arrive(browser, relay);
    const page = await person.open((await relay.request({redirect: client.redirect})).url);
    await deny(page);
    assert.deepEqual(await answered(page, client), {error: 'access_denied', state: 'of-the-test', iss: relay.base});
    await person.leave();
  });
  await step('loaded twice: the first tab still works, and so does the second', async () => {
    const person = await Person.arrive(browser, relay);
    const request = await relay.request({redirect: client.redirect});
    const [first, second] = [await person.open(request.url), await person.open(request.url)];
    for (const page of [first, second]) {
      await allow(page);
      await logIn(page);
      assert.ok((await answered(page, client)).code);
    }
    await person.leave();
  });
  await step('framed by another site: refused', async () => {
    const person = await Person.arrive(browser, relay);
    const request = await relay.request({redirect: client.redirect});
    const urls = [request.url, `${relay.base}/`, `${relay.base}/device`];
    const frames = urls.map((url) => `<iframe src="${url.replaceAll('&', '&amp;')}"></iframe>`).join('');
    const site = http.createServer((_request, response) => response.end(`<!doctype html><title>evil</title>${frames}`));
    await new Promise((resolve) => site.listen(0, '127.0.0.1', resolve));
    const page = await person.open(`http://localhost:${site.address().port}/`);
    await page.waitForLoadState('networkidle');
    const inner = page.frames().filter((frame) => frame !== page.mainFrame());
    assert.equal(inner.length, urls.length);
    for (const frame of inner) {
      assert.match(frame.url(), /^chrome-error:/);
      assert.equal(await frame.getByRole('button').count(), 0);
    }
    site.close();
    await person.context.close();
  });
  await step('a wrong password is told, the right one then works', async () => {
    const person = await Person.arrive(browser, relay);
    const page = await person.open((await relay.request({redirect: client.redirect})).url);
    await allow(page);
    await logIn(page, 'wrong');
    await page.getByRole('alert').getByText('wrong').waitFor();
    await logIn(page);
    assert.ok((await answered(page, client)).code);
    await person.leave();
  });
  await step('what these visits listen for would be heard', async () => {
    const person = await Person.arrive(browser, relay);
    const page = await person.open(`${relay.base}/`);
    await page.evaluate(() => {
      document.body.append(Object.assign(new Image(), {src: '/elsewhere.png'}), Object.assign(document.createElement('p'), {style: 'color: red'}));
      document.body.insertAdjacentHTML('beforeend', '<p style="color: red">');
    });
    await page.waitForLoadState('networkidle');
    assert.match(person.complaints.join('\n'), /Content Security Policy[^]*elsewhere\.png|elsewhere\.png[^]*Content Security Policy/);
    await person.context.close();
  });
  await step('with JavaScript switched off everything works', async () => {
    const person = await Person.arrive(browser, relay, {javaScriptEnabled: false});
    const page = await person.open((await relay.request({redirect: client.redirect})).url);
    await allow(page);
    await logIn(page);
    assert.ok((await answered(page, client)).code);
    await person.leave();
  });
};

/** Presses Tab until the element with this accessible name has the focus; each stop must show that it has it. */
const tabTo = async (page, name) => {
  for (let stops = 0; stops < 20; stops += 1) {
    await page.keyboard.press('Tab');
    const focus = await page.evaluate(() => {
      const element = document.activeElement;
      const {outlineStyle, outlineWidth} = getComputedStyle(element);
      return {name: element.labels?.[0]?.innerText ?? element.innerText, tag: element.tagName, outline: outlineStyle === 'none' ? 0 : parseFloat(outlineWidth)};
    });
    if (focus.tag !== 'BODY') assert.ok(focus.outline >= 2, `${focus.name}: the focus does not show`);
    if (focus.name === name) return;
  }
  assert.fail(`Tab does not reach ${name}`);
};

const keyboard = (browser, relay, client) => step('the keyboard alone is enough', async () => {
  const person = await Person.arrive(browser, relay);
  const page = await person.open((await relay.request({redirect: client.redirect})).url);
  await tabTo(page, 'Allow');
  await page.keyboard.press('Enter');
  await at(page, 'Sign in');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'user', 'the first field has the focus');
  await page.keyboard.type('ada');
  await tabTo(page, 'Password');
  await page.keyboard.type('wrong');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').waitFor();
  await page.keyboard.type('ada');
  await tabTo(page, 'Password');
  await page.keyboard.type(PASSWORD);
  await tabTo(page, 'Sign in');
  await page.keyboard.press('Space');
  assert.ok((await answered(page, client)).code);
  await person.leave();
});

/** Goes to every page that there is, and lets `look` judge each. */
const everyPage = async (relay, client, person, look) => {
  const page = await person.open(`${relay.base}/`);
  await look(page, 'landing');
  await page.goto((await relay.request({redirect: client.redirect})).url);
  await look(page, 'consent');
  await allow(page);
  await at(page, 'Sign in');
  await look(page, 'login');
  await logIn(page, 'wrong');
  await page.getByRole('alert').waitFor();
  await look(page, 'login again');
  await page.goto(`${relay.base}/authorize?client_id=nobody`);
  await look(page, 'error');
  await page.goto((await relay.request({redirect: client.redirect, code_challenge_method: 'plain'})).url);
  assert.match(await page.getByRole('link').getAttribute('href'), /error=invalid_request/);
  await look(page, 'error with a way back');

  const device = new Process('device', PROGRAM, ['login', '--device', relay.base], {env: home(`device-${crypto.randomUUID()}`), stdio: ['ignore', 'pipe', 'pipe']});
  const [, code] = await device.line(/user_code=(\S+)/);
  await page.goto(`${relay.base}/device`);
  await look(page, 'device');
  await page.getByLabel('The code that your device shows').fill('BBBB-BBBB');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').waitFor();
  await look(page, 'device again');
  await page.getByLabel('The code that your device shows').fill(code.toLowerCase().replace('-', ' '));
  await page.keyboard.press('Enter');
  await page.getByText(code).waitFor();
  await look(page, 'device consent');
  await allow(page);
  await logIn(page);
  await at(page, 'Device connected');
  await look(page, 'device connected');
  assert.equal((await device.exited).code, 0, device.tail());

  const login = new Process('login', PROGRAM, ['login', '--browser', relay.base], {env: home(`login-${crypto.randomUUID()}`), stdio: ['ignore', 'pipe', 'pipe']});
  const [url] = await login.line(/https?:\/\/\S+\/authorize\?\S+/);
  await page.goto(url);
  await look(page, 'consent for an agent');
  await allow(page);
  await logIn(page);
  await at(page, 'Almost done');
  await look(page, 'back at the agent');
  assert.equal((await login.exited).code, 0, login.tail());

  await page.goto(`${relay.base}/account`);
  await look(page, 'account without a sign-in');
  await page.getByRole('button', {name: 'Sign in'}).click();
  await logIn(page);
  await page.getByRole('button', {name: /revoke/i}).first().waitFor();
  await look(page, 'account');
};

const looks = async (browser, relay, client) => {
  for (const colorScheme of ['light', 'dark']) {
    await step(`every page is labelled, legible and whole on a ${colorScheme} telephone`, async () => {
      const person = await Person.arrive(browser, relay, {colorScheme, viewport: {width: 360, height: 740}});
      const wrong = [];
      await everyPage(relay, client, person, async (page, name) => {
        const {problems, background} = await page.evaluate(inspectPage);
        wrong.push(...problems.map((problem) => `${name}: ${problem}`));
        const isDark = background.reduce((sum, part) => sum + part, 0) < 3 * 128;
        if (isDark !== (colorScheme === 'dark')) wrong.push(`${name}: not a ${colorScheme} page`);
      });
      assert.deepEqual(wrong, []);
      await person.leave();
    });
  }
};

await run(async () => {
  const {stdout: passwordHash} = spawnSync(PROGRAM, ['hash-password'], {input: `${PASSWORD}\n`, encoding: 'utf8'});
  const relay = await Relay.start(PROGRAM, {local: {users: [{name: 'ada', passwordHash: passwordHash.trim()}]}});
  const client = await LoopbackClient.start();
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  try {
    await chain(browser);
    await decisions(browser, relay, client);
    await keyboard(browser, relay, client);
    await looks(browser, relay, client);
  } finally {
    await browser.close();
  }
});
