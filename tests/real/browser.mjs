// A scripted browser: follows redirects, keeps cookies by host, fills in forms. No JavaScript, as our pages need none.
const ENTITIES = {amp: '&', lt: '<', gt: '>', quot: '"', '#39': "'", '#x27': "'", '#x2F': '/', '#34': '"'};
export const decode = (text) => text.replace(/&(#?\w+);/g, (whole, name) => ENTITIES[name] ?? whole);

const attributes = (tag) =>
  Object.fromEntries([...tag.matchAll(/([\w-]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+)))?/g)].map(
    ([, name, a, b, c]) => [name.toLowerCase(), decode(a ?? b ?? c ?? '')]));

export class Browser {
  #cookies = new Map();
  trace = [];

  /** Opens `url` and walks on, filling forms with `answers`, until a redirect to a URL that starts with `until`. */
  async walk(url, answers, until) {
    const {url: end, status, page} = await this.open(url, answers, until);
    if (page !== undefined) throw new Error(`the pages end at ${end} with ${status}:\n${page}\n${this.trace.join('\n')}`);
    return new URL(end);
  }

  /** The same until a page without a form: its text. */
  async walkToEnd(url, answers) {
    const {url: end, status, page} = await this.open(url, answers);
    if (status >= 400) throw new Error(`${end}: ${status}\n${page}`);
    return page;
  }

  /** The same to wherever it leads: the page there, unless `until` was reached. A page with an error ends it, too. */
  async open(url, answers = {}, until = undefined) {
    let request = {url, method: 'GET'};
    for (let step = 0; step < 30; step += 1) {
      if (until && request.url.startsWith(until)) return {url: request.url};
      const response = await this.#send(request);
      const location = response.headers.get('location');
      if (location) {
        request = {url: new URL(location, request.url).href, method: 'GET'};
        continue;
      }
      const page = await response.text();
      if (response.status >= 400 || !/<form\b/i.test(page)) return {url: request.url, status: response.status, page};
      request = this.#fill(page, request.url, answers);
    }
    throw new Error(`no end of pages:\n${this.trace.join('\n')}`);
  }

  async #send({url, method, body, origin}) {
    const host = new URL(url).host;
    const jar = this.#cookies.get(host) ?? new Map();
    this.#cookies.set(host, jar);
    const response = await fetch(url, {
      method,
      body,
      redirect: 'manual',
      headers: {
        cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; '),
        ...(body ? {'content-type': 'application/x-www-form-urlencoded', origin} : {}),
      },
    });
    for (const line of response.headers.getSetCookie()) {
      const [pair] = line.split(';');
      const [name, value] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)];
      if (value && !/max-age=0|expires=Thu, 01 Jan 1970/i.test(line)) jar.set(name, value);
      else jar.delete(name);
    }
    this.trace.push(`${method} ${url.split('?')[0]} -> ${response.status}`);
    return response;
  }

  #fill(page, url, answers) {
    const form = page.match(/<form\b([^>]*)>([\s\S]*?)<\/form>/i);
    if (!form) throw new Error(`no form on ${url}:\n${page}`);
    const {action = '', method = 'get'} = attributes(form[1]);
    const fields = new URLSearchParams();
    for (const [, tag] of form[2].matchAll(/<input\b([^>]*)>/gi)) {
      const {name, value = '', type = 'text'} = attributes(tag);
      if (name && type !== 'submit') fields.set(name, answers[name] ?? value);
    }
    const approve = [...form[2].matchAll(/<button\b([^>]*)>/gi)].map(([, tag]) => attributes(tag))
      .find(({name, value}) => name && !/deny|cancel/i.test(`${name}${value}`));
    if (approve) fields.set(approve.name, approve.value ?? '');
    const target = new URL(action || url, url);
    if (method.toLowerCase() !== 'post') throw new Error(`form on ${url} is not a POST form`);
    return {url: target.href, method: 'POST', body: fields.toString(), origin: new URL(url).origin};
  }
}
