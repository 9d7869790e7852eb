#!/usr/bin/env node
// The client that the conformance suite tests: `probe`, told what a person would tell it. The program is TUNNEL_BIN.
import {spawnSync} from 'node:child_process';

const {name: scenario = process.env.MCP_CONFORMANCE_SCENARIO, client_id: id, client_secret: secret} = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const more = {
  // Only a call needs what was not granted at first.
  'auth/scope-step-up': ['--call', 'test-tool'],
  'auth/basic-cimd': ['--client-id', 'https://conformance-test.local/client-metadata.json'],
  'auth/pre-registration': ['--client-id', id, '--client-secret', 'env:CLIENT_SECRET'],
}[scenario] ?? [];
const args = ['probe', '--json', ...more, process.argv.at(-1)];
const {status} = spawnSync(process.env.TUNNEL_BIN, args, {stdio: 'inherit', env: {...process.env, CLIENT_SECRET: secret}});
process.exitCode = status ?? 1;
