// A real OpenID provider on loopback for the tests: `node provider.mjs <relay callback URL> [client secret]`.
// Prints its issuer as the first line of stdout. Any login name is accepted by its development pages.
import http from 'node:http';
import Provider from 'oidc-provider';

const [callback, secret] = process.argv.slice(2);
const server = http.createServer();
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const client = {
  client_id: 'mcp-local-tunnel',
  redirect_uris: [callback],
  grant_types: ['authorization_code'],
  response_types: ['code'],
  ...(secret ? {client_secret: secret} : {token_endpoint_auth_method: 'none'}),
};
const provider = new Provider(issuer, {
  clients: [client],
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
