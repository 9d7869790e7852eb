#!/usr/bin/env node
// Stands where a person's browser would (`BROWSER`, `xdg-open`): opens the URL, agrees, signs in, and goes where the
// redirects lead. What to type is in TUNNEL_PERSON, as JSON.
import {Browser} from './browser.mjs';

const browser = new Browser();
const {url, status} = await browser.open(process.argv.at(-1), JSON.parse(process.env.TUNNEL_PERSON ?? '{}'));
if (status !== 200) {
  console.error(`${url.split('?')[0]}: ${status}\n${browser.trace.join('\n')}`);
  process.exitCode = 1;
}
