// A real OpenID provider on loopback for the tests: node provider.mjs CALLBACK [SECRET [METHOD [PORT]]]
// CALLBACK: the relay's; SECRET: its client secret, sent by METHOD. Prints its issuer as the first line of stdout.
// Any login name is accepted by its development pages. Each start has keys of its own.
import http from 'node:http';
import {exportJWK, generateKeyPair} from 'jose';
import Provider from 'oidc-provider';

const [callback, secret, method, port = '0'] = process.argv.slice(2);
const server = http.createServer();
await new Promise((resolve) => server.listen(Number(port), '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;
const key = await generateKeyPair('RS256', {extractable: true});

const client = {
  client_id: 'mcp-local-tunnel',
  redirect_uris: [callback],
  grant_types: ['authorization_code'],
  response_types: ['code'],
  ...(secret ? {client_secret: secret} : {token_endpoint_auth_method: 'none'}),
  ...(method ? {token_endpoint_auth_method: method} : {}),
};
const provider = new Provider(issuer, {
  clients: [client],
  // A provider that knows one way only says so, and then it is used.
  ...(method ? {clientAuthMethods: [method]} : {}),
  jwks: {keys: [{...await exportJWK(key.privateKey), alg: 'RS256', use: 'sig'}]},
  pkce: {required: () => true},
  claims: {openid: ['sub'], email: ['email', 'email_verified']},
  findAccount: (_context, id) => ({
    accountId: id,
    claims: () => ({sub: id, email: `${id}@example.org`, email_verified: true}),
  }),
  cookies: {keys: ['only for tests']},
});
server.on('request', provider.callback());
console.log(issuer);
