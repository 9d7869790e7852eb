// A scripted session of the TypeScript client (v1, the legacy era) with one server: everything that MCP has, step by
// step. It is the same directly and through the tunnel; session.py is its twin for the Python client.
// Usage: node session.mjs reference|everything URL [--token TOKEN] [--prefix PREFIX] [--server-era modern] [--shared] [--halfway] [--report]
//    or: node session.mjs reference|everything [options] -- COMMAND…      (a server on stdio)
// --prefix: how tools and prompts are called on an endpoint of several servers; --server-era modern: the server behind
// the tunnel knows the new era alone; --shared: it is one process for all, in which the question of a server belongs to
// a call for certain only while no other is open; --halfway: say so in the middle, and go on at a line on stdin;
// --report: go on after a step that failed.
import assert from 'node:assert/strict';
import {once} from 'node:events';
import {parseArgs} from 'node:util';
import {Client} from '@modelcontextprotocol/sdk/client/index.js';
import {StdioClientTransport} from '@modelcontextprotocol/sdk/client/stdio.js';
import {StreamableHTTPClientTransport} from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {CreateMessageRequestSchema, ElicitRequestSchema, ListRootsRequestSchema, ResultSchema} from '@modelcontextprotocol/sdk/types.js';
import {until} from './steps.mjs';

const split = process.argv.indexOf('--');
const command = split < 0 ? undefined : process.argv.slice(split + 1);
const {positionals: [kind, url], values: options} = parseArgs({
  args: process.argv.slice(2, split < 0 ? undefined : split), allowPositionals: true,
  options: {token: {type: 'string'}, prefix: {type: 'string', default: ''}, 'server-era': {type: 'string', default: 'both'}, shared: {type: 'boolean'}, halfway: {type: 'boolean'}, report: {type: 'boolean'}},
});
const modernServer = options['server-era'] === 'modern';
/** How long a step waits for what must come. */
const SECONDS = Number(process.env.TUNNEL_PATIENCE ?? 30);

/** A relay that was killed is back within seconds; the client's own default is to give up before. */
const RECONNECTION = {initialReconnectionDelay: 200, maxReconnectionDelay: 1000, reconnectionDelayGrowFactor: 1.5, maxRetries: 30};

/** What a client sees and says, besides its requests. */
const heard = [];
const questions = [];
const roots = [{uri: 'file:///home/ada/notes', name: 'notes'}];
let elicit = () => ({action: 'decline'});
let sample = () => {};

const client = new Client({name: 'scripted typescript', version: '1'}, {capabilities: {sampling: {}, elicitation: {form: {}, url: {}}, roots: {listChanged: true}}});
client.setRequestHandler(CreateMessageRequestSchema, async (request, extra) => {
  questions.push(request);
  const given = await sample(request, extra);
  return given ?? {role: 'assistant', model: 'none', content: {type: 'text', text: `about ${request.params.messages[0].content.text}`}};
});
client.setRequestHandler(ElicitRequestSchema, (request) => {
  questions.push(request);
  return elicit(request.params);
});
client.setRequestHandler(ListRootsRequestSchema, (request) => {
  questions.push(request);
  return {roots};
});
client.fallbackNotificationHandler = async (notification) => { heard.push(notification); };

const patience = {timeout: SECONDS * 1000};
const named = (name) => `${options.prefix}${name}`;
const call = (name, args = {}, more = {}) => client.callTool({name: named(name), arguments: args}, undefined, {...patience, ...more});
const said = async (...args) => (await call(...args)).content[0].text;
const notice = (method, test = () => true, from = 0) => until(`${method} arrives`, SECONDS, async () => heard.slice(from).find((one) => one.method === method && test(one.params ?? {})));
const pages = async (list, member) => {
  const all = [];
  for (let cursor; ;) {
    const page = await list(cursor === undefined ? {} : {cursor}, patience);
    all.push(...page[member]);
    cursor = page.nextCursor;
    if (cursor === undefined) return all;
  }
};
const tools = async () => (await pages((...args) => client.listTools(...args), 'tools')).map(({name}) => name);
const prompts = async () => (await pages((...args) => client.listPrompts(...args), 'prompts')).map(({name}) => name);
const resources = async () => (await pages((...args) => client.listResources(...args), 'resources')).map(({uri}) => uri);
const read = async (uri) => (await client.readResource({uri}, patience)).contents[0];
const complete = async (params) => (await client.complete(params, patience)).completion.values;
const seen = async (what) => JSON.parse(await said('seen'))[what] ?? 0;
/** What `seen` counts goes up by what `run` does. */
const grows = async (what, run) => {
  const before = await seen(what);
  await run();
  await until(`${what} is seen`, SECONDS, async () => await seen(what) > before);
};
const LATER = 'not in the era of the server';

const common = {
  connects: async () => {
    const headers = options.token ? {authorization: `Bearer ${options.token}`} : {};
    await client.connect(command
      ? new StdioClientTransport({command: command[0], args: command.slice(1), stderr: 'ignore'})
      : new StreamableHTTPClientTransport(new URL(url), {requestInit: {headers}, reconnectionOptions: RECONNECTION}), patience);
  },
  'capabilities: all of them, and instructions': async () => {
    const able = client.getServerCapabilities();
    assert.deepEqual(['tools', 'prompts', 'resources', 'logging', 'completions'].filter((one) => !able[one]), []);
    assert.deepEqual([able.tools, able.prompts, able.resources].map(({listChanged}) => listChanged), [true, true, true]);
    assert.equal(able.resources.subscribe, true);
    assert.ok(client.getInstructions());
  },
  'ping: the server answers': () => client.ping(patience),
};

const reference = {
  'tools: all are listed, with what no specification knows': async () => {
    assert.ok((await tools()).includes(named('test_simple_text')));
    const echo = (await pages((...args) => client.listTools(...args), 'tools')).find(({name}) => name === named('echo'));
    assert.deepEqual([echo.title, echo.annotations, echo._meta], ['Echo', {readOnlyHint: true}, {'example.com/kept': [null, 1.5]}]);
  },
  'tools: text, images and sounds come as they are': async () => {
    assert.equal(await said('test_simple_text'), 'This is a simple text response for testing.');
    assert.equal((await call('test_image_content')).content[0].mimeType, 'image/png');
    assert.equal((await call('test_audio_content')).content[0].type, 'audio');
    assert.deepEqual((await call('test_multiple_content_types')).content.map(({type}) => type), ['text', 'image', 'resource']);
  },
  'tools: arguments and results are whole': async () => {
    const args = {number: 1.5, none: null, text: 'héllo ✓ \u0000', deep: [[[{}]]]};
    const result = await call('echo', args);
    assert.deepEqual(JSON.parse(result.content[0].text).arguments, args);
    assert.deepEqual([result.echo, result['example.com/unknown'][1], result._meta['example.com/kept']], [args, 1.5, true]);
  },
  'tools: failures in band and errors arrive as such': async () => {
    assert.equal((await call('test_error_handling')).isError, true);
    await assert.rejects(call('no_such_tool'), ({code}) => code === -32602);
    await assert.rejects(call('echo_error', {why: [null]}), ({code, data}) => code === -32099 && JSON.stringify(data) === '{"why":[null]}');
  },
  'resources: lists, templates and contents': async () => {
    assert.ok((await resources()).includes('test://static-text'));
    const templates = await pages((...args) => client.listResourceTemplates(...args), 'resourceTemplates');
    assert.deepEqual(templates.map(({uriTemplate}) => uriTemplate), ['test://template/{id}/data']);
    assert.equal((await read('test://static-text')).text, 'This is the content of the static text resource.');
    assert.ok((await read('test://static-binary')).blob.startsWith('iVBOR'));
    assert.equal(JSON.parse((await read('test://template/7/data')).text).id, '7');
    await assert.rejects(read('test://none'), ({code, data}) => [-32002, -32602].includes(code) && data.uri === 'test://none');
  },
  'prompts: lists, arguments and images': async () => {
    assert.ok((await prompts()).includes(named('test_simple_prompt')));
    const {messages} = await client.getPrompt({name: named('test_prompt_with_arguments'), arguments: {arg1: 'one', arg2: 'two'}}, patience);
    assert.equal(messages[0].content.text, "Prompt with arguments: arg1='one', arg2='two'");
    const image = await client.getPrompt({name: named('test_prompt_with_image')}, patience);
    assert.equal(image.messages[0].content.type, 'image');
  },
  'completion: for prompts and for templates': async () => {
    const ref = {type: 'ref/prompt', name: named('test_prompt_with_arguments')};
    assert.deepEqual(await complete({ref, argument: {name: 'arg1', value: 'part'}}), ['party']);
    assert.deepEqual(await complete({ref: {type: 'ref/resource', uri: 'test://template/{id}/data'}, argument: {name: 'id', value: '12'}}), ['12', '123']);
  },
  'logging: as much as was asked for': async () => {
    const logged = () => heard.filter(({method}) => method === 'notifications/message').map(({params}) => params.data);
    await client.setLoggingLevel('debug', patience);
    await call('test_tool_with_logging');
    await until('four messages arrive', SECONDS, async () => logged().length >= 4);
    assert.deepEqual(logged(), ['Tool execution started', 'Tool processing data', 'Only for who wants everything', 'Tool execution completed']);
    await client.setLoggingLevel('error', patience);
    await call('test_tool_with_logging');
    // What is logged now comes after what must not have been.
    await client.setLoggingLevel('info', patience);
    await call('test_tool_with_logging');
    await until('three more arrive', SECONDS, async () => logged().length >= 7);
    assert.deepEqual(logged().slice(4), ['Tool execution started', 'Tool processing data', 'Tool execution completed']);
  },
  'sampling: the model of this client is asked': async () => {
    assert.equal(await said('test_sampling', {prompt: 'tunnels'}), 'LLM response: about tunnels');
    assert.equal(questions.at(-1).params.maxTokens, 100);
  },
  'elicitation: accepted, declined, with defaults': async () => {
    elicit = () => ({action: 'accept', content: {username: 'ada', email: 'ada@example.com'}});
    assert.match(await said('test_elicitation', {message: 'Who?'}), /ada@example.com/);
    elicit = () => ({action: 'decline'});
    assert.match(await said('test_elicitation', {message: 'Who?'}), /decline/);
    await call('test_elicitation_sep1034_defaults');
    assert.equal(questions.at(-1).params.requestedSchema.properties.score.default, 95.5);
  },
  'elicitation: a page to visit, and that it was': async () => {
    elicit = ({mode, url: page}) => ({action: mode === 'url' && page === 'https://example.com/visit' ? 'accept' : 'cancel'});
    const from = heard.length;
    assert.equal(await said('ask_url'), 'visit: "accept"');
    if (!modernServer) await notice('notifications/elicitation/complete', ({elicitationId}) => elicitationId, from);
  },
  'elicitation: an error that says what to visit first': () =>
    assert.rejects(call('ask_url_first'), ({code, data}) => code === -32042 && data.elicitations[0].url === 'https://example.com/visit'),
  'questions: several rounds, several at once, and in a prompt': async () => {
    elicit = ({requestedSchema: {properties}}) => ({action: 'accept', content: Object.fromEntries(Object.keys(properties).map((name) => [name, `a ${name}`]))});
    assert.equal(await said('test_input_required_result_multi_round'), '"a name" likes "a color"');
    const three = JSON.parse(await said('test_input_required_result_multiple_inputs'));
    assert.deepEqual([three[0].content.name, three[1].role, three[2].roots], ['a name', 'assistant', roots]);
    const {messages} = await client.getPrompt({name: named('test_input_required_result_prompt')}, patience);
    assert.equal(messages[0].content.text, 'Context: "a context"');
  },
  'questions: of calls at once, to each its own': async () => {
    const names = ['one', 'two', 'three'];
    const all = await Promise.allSettled(names.map((prompt) => said('test_sampling', {prompt})));
    const right = all.map(({value}, index) => value === `LLM response: about ${names[index]}`);
    const refused = all.map(({status}) => options.shared && status === 'rejected');
    assert.ok(names.every((_, index) => right[index] || refused[index]), JSON.stringify(all));
  },
  'questions: one that the server takes back': async () => {
    if (modernServer) return LATER;
    const given = new Promise((resolve) => { sample = async (_, {signal}) => resolve(signal.aborted || await once(signal, 'abort')); });
    assert.equal(await said('ask_and_give_up'), 'gave up');
    await until('the question is aborted', SECONDS, () => given.then(() => true));
    sample = () => {};
  },
  'roots: listed, and their change told': async () => {
    assert.match(await said('list_roots'), /file:\/\/\/home\/ada\/notes/);
    if (!modernServer) await grows('notifications/roots/list_changed', () => client.sendRootsListChanged());
  },
  'progress: of a call, in order': async () => {
    const progress = [];
    await call('count', {steps: 4, delay_ms: 30}, {onprogress: (one) => progress.push(one.progress)});
    // The client may drop the last one: it comes together with the result.
    assert.deepEqual(progress.slice(0, 4), [0, 25, 50, 75]);
  },
  'progress: of an answer': async () => {
    if (modernServer) return LATER;
    sample = async ({params}, extra) => {
      await extra.sendNotification({method: 'notifications/progress', params: {progressToken: params._meta.progressToken, progress: 1}});
      // The answer goes before what waits, and after it nobody wants to know.
      await new Promise((resolve) => setTimeout(resolve, 500));
    };
    await grows('notifications/progress', () => said('test_sampling', {prompt: 'slow'}));
    sample = () => {};
  },
  'cancellation: the server stops': () => grows('cancelled sleep', async () => {
    const enough = new AbortController();
    await assert.rejects(call('sleep', {}, {signal: enough.signal, onprogress: () => enough.abort('it has begun')}));
  }),
  'ping: this client answers': async () => {
    if (modernServer) return LATER;
    assert.match(await said('ask_ping'), /^pong/);
  },
  'subscriptions: told while subscribed, and no longer': async () => {
    const uri = 'test://watched-resource';
    const from = heard.length;
    const updates = () => heard.slice(from).filter(({method, params}) => method === 'notifications/resources/updated' && params.uri === uri).length;
    await client.subscribeResource({uri}, patience);
    await call('update_watched');
    await until('the update is told', SECONDS, async () => updates() > 0);
    assert.match((await read(uri)).text, /^updated [1-9]/);
    await client.unsubscribeResource({uri}, patience);
    await call('update_watched');
    // What is told now comes after what must not have been.
    await client.subscribeResource({uri}, patience);
    await call('update_watched');
    await until('the next update is told', SECONDS, async () => updates() > 1);
    assert.equal(updates(), 2);
    await client.unsubscribeResource({uri}, patience);
  },
  'lists: changes are told, and show': async () => {
    for (const [word, list, entry] of [['tool', tools, named('test_dynamic_tool')], ['prompt', prompts, named('test_dynamic_prompt')], ['resource', resources, 'test://dynamic']]) {
      const [from, before] = [heard.length, (await list()).includes(entry)];
      await call(`test_trigger_${word}_change`);
      await notice(`notifications/${word}s/list_changed`, undefined, from);
      await until(`${entry} comes or goes`, SECONDS, async () => (await list()).includes(entry) !== before);
    }
  },
  'extensions: methods and notifications that nobody knows': async () => {
    if (options.prefix) return 'only on an endpoint of one server';
    const echo = await client.request({method: 'example.com/echo', params: {any: [1]}}, ResultSchema.loose(), patience);
    assert.deepEqual(echo.params.any, [1]);
    const from = heard.length;
    await call('echo_notification', {any: [2]});
    await notice('notifications/example.com/echo', ({any}) => any[0] === 2, from);
  },
};

const everything = {
  'tools: called': async () => {
    assert.ok((await tools()).includes(named('echo')));
    assert.equal(await said('echo', {message: 'héllo ✓'}), 'Echo: héllo ✓');
    assert.match(await said('get-sum', {a: 40, b: 2}), /42/);
    assert.equal((await call('get-tiny-image')).content[1].type, 'image');
    assert.equal((await call('get-structured-content', {location: 'New York'})).structuredContent.temperature, 33);
  },
  'resources: listed and read': async () => {
    assert.ok((await resources()).length > 3);
    const templates = await pages((...args) => client.listResourceTemplates(...args), 'resourceTemplates');
    assert.equal(templates.length, 2);
    assert.match((await read('demo://resource/dynamic/text/1')).text, /Resource 1/);
  },
  'prompts: with arguments': async () => {
    assert.equal((await prompts()).length, 4);
    const {messages} = await client.getPrompt({name: named('args-prompt'), arguments: {city: 'Turin'}}, patience);
    assert.equal(messages[0].content.text, "What's weather in Turin?");
  },
  'completion: with context': async () => {
    const ref = {type: 'ref/prompt', name: named('completable-prompt')};
    assert.deepEqual(await complete({ref, argument: {name: 'department', value: 'S'}}), ['Sales', 'Support']);
    assert.deepEqual(await complete({ref, argument: {name: 'name', value: 'D'}, context: {arguments: {department: 'Sales'}}}), ['David']);
  },
  'logging: arrives': async () => {
    const from = heard.length;
    await client.setLoggingLevel('debug', patience);
    await call('toggle-simulated-logging');
    await notice('notifications/message', ({data}) => /level.message/.test(data), from);
    await call('toggle-simulated-logging');
  },
  'sampling: the model of this client is asked': async () => {
    assert.match(await said('trigger-sampling-request', {prompt: 'tunnels', maxTokens: 5}), /about Resource trigger-sampling-request context: tunnels/);
  },
  'elicitation: a form and a page': async () => {
    elicit = () => ({action: 'accept', content: {name: 'Ada'}});
    assert.match(JSON.stringify((await call('trigger-elicitation-request')).content), /Ada/);
    elicit = ({mode}) => ({action: mode === 'url' ? 'accept' : 'cancel'});
    assert.match(JSON.stringify((await call('trigger-url-elicitation', {url: 'https://example.com/visit'})).content), /accept/);
  },
  'roots: listed': async () => {
    assert.match(JSON.stringify((await call('get-roots-list')).content), /file:\/\/\/home\/ada\/notes/);
  },
  'roots: asked for again when they change': async () => {
    const asked = () => questions.filter(({method}) => method === 'roots/list').length;
    const before = asked();
    await client.sendRootsListChanged();
    await until('the server asks again', SECONDS, async () => asked() > before);
  },
  'progress: of a call, in order': async () => {
    const progress = [];
    await call('trigger-long-running-operation', {duration: 0.3, steps: 3}, {onprogress: (one) => progress.push(one.progress)});
    assert.deepEqual(progress.slice(0, 2), [1, 2]);
  },
  'cancellation: the call is over': async () => {
    const enough = new AbortController();
    await assert.rejects(call('trigger-long-running-operation', {duration: 5, steps: 50}, {signal: enough.signal, onprogress: () => enough.abort('it has begun')}));
    assert.equal(await said('echo', {message: 'on'}), 'Echo: on');
  },
  'subscriptions: told': async () => {
    const [uri, from] = ['demo://resource/dynamic/text/1', heard.length];
    await client.subscribeResource({uri}, patience);
    await call('toggle-subscriber-updates');
    await notice('notifications/resources/updated', (params) => params.uri === uri, from);
    await call('toggle-subscriber-updates');
    await client.unsubscribeResource({uri}, patience);
  },
  'lists: changes are told, and show': async () => {
    const from = heard.length;
    const {content: [link]} = await call('gzip-file-as-resource', {name: 'note.gz', data: 'data:text/plain,hello'});
    assert.equal(link.type, 'resource_link');
    await notice('notifications/resources/list_changed', undefined, from);
    await until('it is listed', SECONDS, async () => (await resources()).includes(link.uri));
    assert.ok((await read(link.uri)).blob.startsWith('H4sI'));
  },
};

const within = (seconds, promise) => Promise.race([promise, new Promise((_, reject) => { setTimeout(() => reject(new Error(`not over in ${seconds} s`)), seconds * 1000).unref(); })]);

const steps = Object.entries({...common, ...{reference, everything}[kind]});
let [passed, failed, skipped] = [0, 0, 0];
for (const [index, [name, run]] of steps.entries()) {
  if (options.halfway && index === Math.floor(steps.length / 2)) {
    console.log('halfway');
    await once(process.stdin, 'data');
  }
  try {
    const why = await within(3 * SECONDS, run());
    if (why === LATER || (typeof why === 'string' && /^only/.test(why))) {
      skipped += 1;
      console.log(`skipped - ${name}: ${why}`);
    } else {
      passed += 1;
      console.log(`ok ${passed} - ${name}`);
    }
  } catch (error) {
    failed += 1;
    console.log(`not ok - ${name}: ${String(error.message).replaceAll(/\s+/g, ' ').slice(0, 200)}`);
    // Without a connection nothing else is worth a try.
    if (!options.report || name === 'connects') break;
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
await within(2, client.close()).catch(() => {});
process.exit(failed > 0 ? 1 : 0);
