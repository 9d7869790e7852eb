//! Bounds: one constant each, with its reason (invariant A6). Settings that people may change have their default here.

use core::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A configuration: hundreds of servers with all their settings are some hundred kilobytes.
pub const MAX_CONFIG: usize = MIB;

/// A client's body on `/mcp`: requests are small; 4 MiB leaves room for a pasted file. Configurable.
pub const MAX_BODY: usize = 4 * MIB;
/// What is read of a body that will not be taken, so that its sender gets to the answer: more than an honest mistake.
pub const MAX_DISCARDED: usize = 64 * MIB;
/// A body on an OAuth endpoint: forms and registrations are a few hundred bytes.
pub const MAX_OAUTH_BODY: usize = 16 * KIB;
/// A body that always gets through, however much is held of others: most messages on `/mcp`, and everything of sign-in.
/// Those of all connections are 160 MiB.
pub const SMALL_BODY: usize = MAX_OAUTH_BODY;
/// All larger bodies together, until they are on their way to an agent: 64 of the largest size at once, and a fourth of
/// a small server's memory. Configurable.
pub const MAX_BODIES: usize = 256 * MIB;
/// How long a client is told to wait that met no room for its body: most come and go within a second or two.
pub const BODIES_RETRY: Duration = Duration::from_secs(5);
/// The header fields of a request: browsers send twenty. So many the HTTP library has room for without asking for memory.
pub const MAX_FIELDS: usize = 100;
/// All header fields of a request together: what common proxies allow.
pub const MAX_HEADERS: usize = 32 * KIB;
/// The whole head of a request: its fields, and a request line that may carry the sealed id of a client.
pub const MAX_HEAD: usize = MAX_HEADERS + MAX_SEALED;
/// What is read of a head: more than may be, so that whoever sends somewhat more is told the limit.
pub const MAX_HEAD_READ: usize = MAX_HEAD + 16 * KIB;
/// How long a request's head may take, and a TLS handshake: slow ones tie up a connection. Configurable.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request's body may take. Configurable.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// One message of a local server (a line of its stdout, a result): a 20 MB screenshot with room to spare.
pub const MAX_MESSAGE: usize = 64 * MIB;
/// Objects and arrays inside each other in an answer that passes through: more than clients parse (.NET 64,
/// serde_json 128, Python and Jackson about 1 000, Go 10 000), and 8 KiB of bookkeeping at most.
pub const MAX_NESTING: usize = 65_536;
/// One JSON message of dialect V1: what the predecessor's peers take.
pub const MAX_V1_MESSAGE: usize = 32 * MIB;
/// A catalog: 8 192 tools of two kilobytes. A relay may be configured to take less.
pub const MAX_CATALOG: usize = 16 * MIB;
/// Tools of one agent: more would drown any model. A relay may be configured to take less.
pub const MAX_TOOLS: usize = 8_192;
/// One tool's JSON.
pub const MAX_TOOL: usize = 64 * KIB;
/// Prompts of one agent, and of all of a user's: people choose among them.
pub const MAX_PROMPTS: usize = 1_024;
/// Resources of one agent, and of all of a user's: a server that has more of them has templates.
pub const MAX_RESOURCES: usize = 8_192;
/// Resource templates of one agent, and of all of a user's: a URI that is in no list is compared with each.
pub const MAX_TEMPLATES: usize = 512;
/// Expressions of one template: real ones have three.
pub const MAX_EXPRESSIONS: usize = 16;
/// A URI or a URI template in a list, in bytes: what browsers and proxies take, too. A longer URI matches no template.
pub const MAX_LISTED_URI: usize = 2 * KIB;
/// Local servers of one agent.
pub const MAX_SERVERS: usize = 256;
/// Hops of an `X-Forwarded-For` field that are looked at: a chain of proxies is short.
pub const MAX_HOPS: usize = 16;
/// Devices of one user connected at once. Configurable.
pub const MAX_DEVICES: usize = 64;

/// Frame bodies on the tunnel: a small answer waits behind one of these at most.
pub const CHUNK: usize = 16 * KIB;
/// One WebSocket message on dialect V2: several frames, yet small enough to stay fair.
pub const MAX_TRANSMIT: usize = 64 * KIB;
/// A WebSocket message that is accepted on dialect V2: what `MAX_TRANSMIT` lets a peer send, with room for its growth.
pub const MAX_RECEIVE: usize = MIB;
/// What may be under way on one stream before the consumer takes it: the memory that one slow client costs.
pub const STREAM_CREDIT: u32 = 256 * 1024;
/// Calls open on one tunnel.
pub const MAX_STREAMS: usize = 1_024;
/// Answers that wait for credit on an agent, all calls together: beyond it the largest is reset.
pub const MAX_BUFFERED: usize = 256 * MIB;
/// How long an answer may wait without any credit.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// One message that belongs to a call but is not its answer: a question for the client, or its reply, with a picture.
pub const MAX_CALL_MESSAGE: usize = 8 * MIB;
/// Messages of one call that wait to be sent: a server that asks more than this at once is broken.
pub const MAX_CALL_QUEUE: usize = 256;
/// Notifications of one call that wait for a slow client: only the newest progress is worth reading.
pub const MAX_UNREAD: usize = 16;
/// One notification that belongs to no call: list changes and log lines.
pub const MAX_NOTICE: usize = 256 * KIB;
/// Notifications without a call that wait to be sent: beyond it the oldest goes, clients list anew anyway.
pub const MAX_NOTICES: usize = 64;
/// What is put together from pieces on one tunnel, all calls together: one params of the largest size.
pub const MAX_ASSEMBLY: usize = MAX_MESSAGE;
/// Control frames that wait on one tunnel: a reset and a refusal for each stream, with room for what clients say by their
/// sessions; more is a peer that orders and does not read.
pub const MAX_CONTROL: usize = 4 * MAX_STREAMS;
/// How long the closing handshake may wait for the socket.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a probe waits for a sign of life: a machine that slept wants to know soon, a slow link needs a little.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Between pings on a quiet tunnel: shorter than the shortest common idle time-out of proxies (60 s).
pub const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Pings without any sign of life after which a tunnel is dead.
pub const PINGS_MISSED: u32 = 3;
/// Between pings of a V1 agent, whatever else it sends (the predecessor's rule).
pub const V1_PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a dead V1 peer is kept (the predecessor's rule).
pub const V1_SILENCE: Duration = Duration::from_secs(90);
/// How long a V1 call waits (the predecessor's rule).
pub const V1_CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A call without any frame from its server: tools that work for half an hour in silence exist. Configurable.
pub const CALL_IDLE: Duration = Duration::from_secs(30 * 60);
/// Silence after which an answer turns from JSON to a stream with heartbeats: below every proxy's patience.
pub const STREAM_AFTER: Duration = Duration::from_secs(3);
/// Between comments on a quiet event stream.
pub const HEARTBEAT: Duration = Duration::from_secs(15);
/// What is kept of one event stream for a client that comes back, in bytes: progress, questions and a usual answer.
pub const MAX_REPLAY: usize = 256 * KIB;
/// The events of one stream that are kept: progress comes in many.
pub const MAX_REPLAY_EVENTS: usize = 512;
/// What is kept of all streams of a user, in bytes.
pub const MAX_REPLAY_OF_USER: usize = 2 * MIB;
/// Streams of a user that something is kept of.
pub const MAX_REPLAYS: usize = 256;
/// For how long something is kept for a client that went away: clients come back within seconds.
pub const REPLAY_KEPT: Duration = Duration::from_secs(60);
/// For how long a server's notice waits for a client that is about to listen: clients are back within seconds.
pub const LATE_NOTICE_KEPT: Duration = Duration::from_secs(10);
/// Notices that wait so, of one user.
pub const MAX_LATE_NOTICES: usize = 32;
/// The longest notice that waits, in bytes.
pub const MAX_LATE_NOTICE: usize = 16 * KIB;
/// Questions of servers to one user's clients that are open: each call asks one at a time, few ask several.
pub const MAX_QUESTIONS: usize = 1_024;
/// Those that belong to no call, to one session.
pub const MAX_BESIDE_OF_SESSION: usize = 32;
/// After which time one that belongs to no call may be forgotten: its agent has long given it up, and may have been
/// unable to say so.
pub const BESIDE_KEPT: Duration = Duration::from_secs(20 * 60);
/// Parameters of one tool that are repeated in header fields: each is a field of the request, whose fields are bounded
/// together.
pub const MAX_MIRRORED: usize = 64;
/// How deep in a tool's schema such parameters are looked for: each level reads the arguments once more.
pub const MAX_MIRROR_DEPTH: usize = 8;
/// For how long a client of 2026-07-28 may take what the relay lists for fresh: about as long as nobody minds that a
/// device which has just come up is not there. Who listens for changes hears of them at once.
pub const LIST_TTL: Duration = Duration::from_secs(30);
/// An answer that is held whole because something in it is the relay's to say: a server's description of itself.
pub const MAX_MENDED: usize = MIB;
/// How long a request that goes to several servers waits for all of them: a person waits, and the others have answered.
pub const GATHER_PATIENCE: Duration = Duration::from_secs(10);
/// Pages of one server's list of tasks: more are left out.
pub const MAX_TASK_PAGES: usize = 16;
/// Tasks of one user whose servers are remembered: any other is found by asking.
pub const MAX_TASKS: usize = 1_024;
/// A result that makes a task, in bytes: its id, state and times.
pub const MAX_TASK_ANSWER: usize = 4 * KIB;
/// Subscriptions of one user's sessions on `/mcp` whose spelling is remembered: two kilobytes each at most, usually 100
/// bytes.
pub const MAX_WATCHES: usize = 512;
/// Resources and tasks that one user's modern clients watch on `/mcp`: six kilobytes each at most, with both spellings of
/// a URI. What is asked for beyond is not acknowledged.
pub const MAX_FED: usize = 512;
/// The `_meta` of a `subscriptions/listen` on `/mcp` that watches resources or tasks, in bytes: it is kept for as long, since each
/// server is asked with it, and again when it comes back. A client's name, version and capabilities are a kilobyte.
pub const MAX_FEED_META: usize = 16 * KIB;
/// How long such a subscription waits for what its servers honour before it is acknowledged: a client's library waits for
/// that, and a server that starts may take longer.
pub const FEED_PATIENCE: Duration = Duration::from_secs(5);
/// Before a server is asked again that ended what it was asked; doubled each time up to [`FEED_PAUSE_MAX`]. A server
/// that was restarted is there by then.
pub const FEED_PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait: one that ends every subscription at once costs a call a minute.
pub const FEED_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Calls of one user under way. Configurable.
pub const MAX_CALLS: usize = 1_024;
/// Notification streams of one user. Configurable.
pub const MAX_LISTENERS: usize = 256;

/// The first reconnection attempt comes within this time.
pub const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between reconnection attempts.
pub const RECONNECT_MAX: Duration = Duration::from_secs(30);
/// The longest wait grows by this part of itself with each attempt: a seventh.
pub const RECONNECT_GROWTH: u32 = 7;
/// How long a tunnel must hold before its backoff starts over.
pub const RECONNECT_STABLE: Duration = Duration::from_secs(60);
/// How long a tunnel's connection and handshake may take.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// The raw id of a JSON-RPC message: ids are numbers or UUIDs, and are kept as long as their call.
pub const MAX_ID: usize = 512;
/// Messages in one batch (revision 2025-03-26): each is a call of its own.
pub const MAX_BATCH: usize = 64;
/// Members of a JSON object whose members are looked at one by one: envelopes, params, tools and `_meta` have a dozen.
pub const MAX_MEMBERS: usize = 4_096;
/// A sealed value as text: a registration of ten redirects of 512 bytes with room to spare, and no header is longer.
pub const MAX_SEALED: usize = 16 * KIB;
/// The ids of requests in the id of an event, in bytes of JSON: any one, or a batch of sixteen with UUIDs. Of a larger
/// batch the others are left out.
pub const MAX_ASKED: usize = 640;
/// The id of an event in a stream: it comes back in a header. Longer ones are ignored, so such a stream cannot resume.
pub const MAX_EVENT_ID: usize = KIB;
/// How long a request to the login provider, or an agent's to its relay, may take.
pub const OAUTH_FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer to such a request: discovery documents and key sets are a few kilobytes.
pub const MAX_OAUTH_ANSWER: usize = 256 * KIB;
/// Steps of logins at the provider that are under way at once: each waits at most for a few fetches.
pub const MAX_LOGINS: usize = 1_024;
/// The shortest time for which a provider's documents are kept, whatever their headers say: spares the provider.
pub const PROVIDER_CACHE_MIN: Duration = Duration::from_secs(5 * 60);
/// How long a provider's documents are kept when their headers say nothing.
pub const PROVIDER_CACHE_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// The longest time for which a provider's documents are kept: a withdrawn key counts for no longer.
pub const PROVIDER_CACHE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Between fetches of the provider's keys because a token named an unknown one: anyone can make such a token.
pub const PROVIDER_KEYS_RETRY: Duration = Duration::from_secs(60);
/// How far the provider's clock may be from ours.
pub const CLOCK_LEEWAY: Duration = Duration::from_secs(60);
/// The longest value of a claim that names a person (OpenID Connect Core section 2: `sub` has at most 255 characters).
pub const MAX_CLAIM: usize = 255;
/// Bytes of a person's groups that are kept with each of their grants: two dozen names of forty characters, in a record
/// of at most 4 KiB.
pub const MAX_KEPT_GROUPS: usize = 1024;
/// The longest authorization code that is taken.
pub const MAX_CODE: usize = 4 * KIB;
/// Fields of a form or a query: OAuth requests have a dozen.
pub const MAX_FORM_FIELDS: usize = 64;

/// Clients of a relay's configuration: an operator wrote them.
pub const MAX_STATIC_CLIENTS: usize = 64;
/// Redirect URIs of one client: three are the most that is seen.
pub const MAX_REDIRECTS: usize = 10;
/// The URL of a client's metadata document: today's have 60 bytes, and it travels in cookies and tokens.
pub const MAX_DOCUMENT_URL: usize = 256;
/// A client's metadata document (its draft, section 6.6): today's have one kilobyte.
pub const MAX_CLIENT_DOCUMENT: usize = 5 * KIB;
/// How long such a document may take: a person waits for the page.
pub const CLIENT_DOCUMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Clients' documents that are remembered, failures among them: six kilobytes each at most. Beyond it the one goes that
/// was not asked for longest.
pub const MAX_CLIENT_DOCUMENTS: usize = 1_024;
/// Clients' documents that are fetched at once: anybody can cause it, and each is a connection.
pub const MAX_DOCUMENT_FETCHES: usize = 64;
/// Authorization requests that wait for one document: 32 KiB each at most.
pub const MAX_DOCUMENT_WAITERS: usize = 32;
/// The shortest time for which a client's document is kept, whatever its headers say: spares its host.
pub const CLIENT_DOCUMENT_MIN: Duration = Duration::from_secs(5 * 60);
/// How long a client's document is kept when its headers say nothing.
pub const CLIENT_DOCUMENT_DEFAULT: Duration = Duration::from_secs(60 * 60);
/// The longest time for which it is kept: a redirect that was withdrawn counts for no longer.
pub const CLIENT_DOCUMENT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// For how long a document is used at most when it cannot be fetched again, from its last fetch.
pub const CLIENT_DOCUMENT_STALE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Between fetches of a document that failed: whoever mends it may try again soon, and nobody can make us hammer its host.
pub const CLIENT_DOCUMENT_RETRY: Duration = Duration::from_secs(30);

/// Master keys that open what they sealed: a rotation each quarter for four years. Each costs a MAC where those of any
/// key count.
pub const MAX_KEYS: usize = 16;
/// Authorization codes that are remembered, redeemed ones among them: a kilobyte each, made only after a login.
pub const MAX_CODES: usize = 4_096;
/// Devices that wait for their person to type a code: half a kilobyte each, made by anybody. Beyond it one goes that came
/// from where the most came from.
pub const MAX_DEVICE_GRANTS: usize = 1_024;
/// Token families in all: half a kilobyte each. Their ids are also in what each request's token is looked up in, which a
/// sign-in copies: some 20 bytes each.
pub const MAX_FAMILIES: usize = 16_384;
/// Sign-ins of one user that are good at once: a person has a dozen clients. Beyond it the longest unused one ends.
pub const MAX_USER_SIGN_INS: usize = 128;
/// Families of one user, revoked and minted ones among them: what one account may take of `MAX_FAMILIES`.
pub const MAX_USER_FAMILIES: usize = 512;
/// Tokens minted by the operator: more want a directory, not a list.
pub const MAX_MINTED: usize = 1_024;
/// Ended MCP sessions that are remembered; beyond it those go first that would end first.
pub const MAX_ENDED_SESSIONS: usize = 16_384;
/// Writes and password checks of the authorization server under way together.
pub const MAX_OAUTH_JOBS: usize = 1_024;
/// Password checks under way: each costs tens of milliseconds and megabytes.
pub const MAX_VERIFIES: usize = 64;
/// What waits for the write of one token family: real clients refresh two or three times at once.
pub const MAX_FAMILY_QUEUE: usize = 16;
/// Registrations, authorizations and refused tokens of one address in a minute, each kind by itself: many people may
/// share an address, and nothing can be guessed. Configurable.
pub const REQUESTS_PER_MINUTE: u32 = 60;
/// Rate-limited addresses and accounts: a hundred bytes each.
pub const MAX_RATED: usize = 8_192;
/// Addresses that are remembered of one account, because its password was right there: home, office, and a phone's many.
pub const MAX_ACCOUNT_PLACES: usize = 16;
/// Those of all accounts: fifty bytes each, made only with a right password.
pub const MAX_PLACES: usize = 4_096;
/// Spent cookies and pages of sign-ins that are remembered until they run out: a hundred bytes each, for half an hour at
/// most. Beyond it those go first that would run out first.
pub const MAX_SPENT: usize = 16_384;
/// Records removed from the store in one transaction.
pub const SWEEP_BATCH: usize = 256;

/// How long a session of an MCP client lives: longer than anybody keeps a conversation open, and as long as a session
/// that was ended has to be remembered.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// A sealed `Mcp-Session-Id`: it comes with every request, and proxies bound a header line at 4 to 8 KiB.
pub const MAX_SESSION_ID: usize = KIB;
/// What a client declared in its handshake, in bytes of JSON: part of its session id. The longest known is under 200.
pub const MAX_CAPABILITIES: usize = 320;
/// The name and version that a client gives itself, in bytes: part of its session id, shown in `status` and logs.
pub const MAX_CLIENT_NAME: usize = 96;
/// The name of a server or tool as an agent lists it, in characters: twice what any client takes.
pub const MAX_LISTED_NAME: usize = 128;
/// A device's name, in bytes: the longest host name.
pub const MAX_DEVICE_NAME: usize = 255;
/// Why a server is not ready, in bytes.
pub const MAX_REASON: usize = KIB;
/// The instructions of all servers together: they become part of a model's prompt.
pub const MAX_INSTRUCTIONS: usize = 16 * KIB;
/// Changes within this time make one `list_changed`: servers come up side by side.
pub const ANNOUNCE_DELAY: Duration = Duration::from_millis(100);
/// A client that begins to listen this soon after a change is told of it: it may have read its list before.
pub const ANNOUNCE_LATE: Duration = Duration::from_secs(300);
/// All answers of a batch together: they are held until the last one is there.
pub const MAX_BATCH_ANSWER: usize = 8 * MIB;
/// Up to here an answer that is complete is sent in one piece.
pub const WHOLE_ANSWER: usize = 64 * KIB;

/// Patterns in one list of a policy: a person wrote them.
pub const MAX_PATTERNS: usize = 256;
/// A pattern of a policy, in bytes: the names of a server and a tool, with room.
pub const MAX_PATTERN: usize = 512;
/// The largest `callsPerMinute`: each call's time is kept for a minute.
pub const MAX_CALLS_PER_MINUTE: u32 = 6_000;
/// The largest `concurrency`: a tunnel takes no more calls.
pub const MAX_CONCURRENCY: u32 = 1_024;

/// A tool's definition that is kept to show what changed: most have a kilobyte or two. A longer one is pinned by its
/// hash alone.
pub const MAX_PINNED_TOOL: usize = 16 * KIB;
/// The definitions of one server that are kept together.
pub const MAX_PINNED: usize = MIB;
/// Approvals that are remembered of one server: a few clients with all its tools. Beyond it the oldest is asked again.
pub const MAX_APPROVED: usize = 1_024;
/// Calls that wait for a person: more than anybody looks through.
pub const MAX_WAITING: usize = 64;
/// The params of all calls that wait for a person.
pub const MAX_WAITING_BYTES: usize = 16 * MIB;
/// Clients and tools that a person let pass for as long as the agent runs.
pub const MAX_LET_PASS: usize = 1_024;

/// Calls under way at one local server, held ones included: one client alone may have half of it, and more than that is
/// a client out of control.
pub const MAX_SERVER_CALLS: usize = 512;
/// How long after its cancellation a question of a process may still be a call's: it reads what it is written within a
/// moment, and whoever asks in another call meanwhile can ask again.
pub const CANCEL_HEARD: Duration = Duration::from_secs(2);
/// Cancelled calls of one process that are remembered for that: beyond it the oldest was certainly heard of.
pub const MAX_CANCELLED: usize = 64;
/// Questions of a server that wait for the client of one call: a person answers one at a time.
pub const MAX_CALL_QUESTIONS: usize = 32;
/// Questions of one run of a server that wait for clients with no call open: it asks for roots, now and then.
pub const MAX_BESIDE: usize = 8;
/// How long such a question waits for its answer: nothing else tells that nobody is there, and a person may be away from
/// the keyboard.
pub const BESIDE_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How soon a server asks for the roots that a client said to be others: at once, or when it has collected such words.
pub const ROOTS_ASKED_WITHIN: Duration = Duration::from_secs(10);
/// A session that called nothing for longer is taken to be left: most clients go without ending theirs.
pub const SESSION_IN_USE: Duration = Duration::from_secs(60 * 60);
/// Tasks, and pages that clients were asked to visit, whose owners are remembered of one server's run, each: half a
/// kilobyte at most. Of older ones, as of all others, every session is told.
pub const MAX_BELONGINGS: usize = 512;
/// Sessions of clients whose wishes an agent remembers: a person has a dozen conversations open.
pub const MAX_CLIENT_SESSIONS: usize = 256;
/// The key of a client's session, in bytes: a relay's have 22.
pub const MAX_SESSION_KEY: usize = 128;
/// Resources that one session watches, at all servers of an agent together: what a person can look at, with room.
pub const MAX_SUBSCRIPTIONS: usize = 128;
/// What is kept on disk of what sessions set, in bytes: a session with all that it may watch has some tens of kilobytes,
/// and a person a dozen of them. What does not fit is that of those who called nothing for longest.
pub const MAX_KEPT_WISHES: usize = MIB;
/// Between two times that it is written: whoever subscribes to much at once costs the disk no more than that.
pub const KEEP_WISHES_EVERY: Duration = Duration::from_secs(1);
/// The URI of a resource that is watched, in bytes: remembered for as long as it is.
pub const MAX_URI: usize = 2 * KIB;
/// Requests of the agent's own to one server whose answer is of no interest, and has not come: more, and it does not
/// answer any.
pub const MAX_ASIDES: usize = 64;
/// What waits for a server that does not read its stdin: a few of the largest requests.
pub const MAX_STDIN_BACKLOG: usize = 16 * MIB;
/// Lines of a server's stdout within [`NOISE_WINDOW`] that are no MCP messages and have none in between: a banner or a
/// stack trace has tens. More is a program that speaks something else, and each line costs a step of the agent.
pub const MAX_NOISE_LINES: usize = 1_000;
/// Bytes of such lines: any one of them may pass.
pub const MAX_NOISE: usize = MAX_MESSAGE;
/// See [`MAX_NOISE_LINES`]. A server that logs to its stdout now and then works, so that old lines are forgiven.
pub const NOISE_WINDOW: Duration = Duration::from_secs(60);
/// A line of a server's stdout that is thrown away for its length is followed this far: it has no end.
pub const MAX_LINE_SKIPPED: u64 = 1024 * 1024 * 1024;
/// Pages of one list: a server whose cursors never end is cut off.
pub const MAX_PAGES: usize = 1_024;
/// Changed tools that a catalog names of one server: beyond that, the server as a whole is another one.
pub const MAX_CHANGED: usize = 32;
/// Something quoted within a reason.
pub const MAX_QUOTE: usize = 160;
/// The beginning of an HTTP server's error page: enough for a JSON-RPC error or a sentence.
pub const MAX_PROBLEM: usize = 64 * KIB;
/// A request to an HTTP server that is kept until its answer begins, since the server may want it sent elsewhere or in a
/// new session: what people type is far less, and a file is not held in memory for it.
pub const MAX_KEPT_REQUEST: usize = 256 * KIB;
/// Event streams of an HTTP server that stay open after their answer, so that their connections can be used again.
pub const MAX_LINGERING: usize = 16;
/// Resumptions in a row of one event stream that brought nothing.
pub const MAX_RESUMPTIONS: u32 = 5;
/// How long an HTTP server may take for an answer's head: no cap in effect, since calls end by their idle limit.
pub const HTTP_ANSWER_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long an HTTP server may take for the head of what needs no thinking.
pub const HTTP_NOTE_TIMEOUT: Duration = Duration::from_secs(30);

/// The first restart of a server comes within this time.
pub const RESTART_FIRST: Duration = Duration::from_millis(500);
/// The longest wait between restarts of a server that may recover.
pub const RESTART_MAX: Duration = Duration::from_secs(30);
/// How long a server must run before its backoff starts over.
pub const RESTART_STABLE: Duration = Duration::from_secs(60);
/// Quick ends in a row after which a server counts as failed.
pub const MAX_QUICK_FAILURES: u32 = 5;
/// The shortest value of a server's `env` or `headers` that is kept out of what is told of it: shorter ones (a port, a
/// level, `true`) stand in any text.
pub const MIN_VEILED: usize = 6;
/// Lines of one value that are known by themselves as well; a key has fewer.
pub const MAX_VEILED_LINES: usize = 64;
/// How much of something that is quoted is looked at: the quote is shorter by far.
pub const MAX_QUOTED: usize = 4 * KIB;
/// Between attempts to start a failed server: somebody may have mended it.
pub const FAILED_RETRY: Duration = Duration::from_secs(60);
/// How long a process whose stdout ended may take to end itself.
pub const EXIT_AFTER_OUTPUT: Duration = Duration::from_secs(2);
/// Runs that sessions have of one server for themselves: each is a process, and a person has a dozen conversations open.
pub const MAX_SESSION_RUNS: usize = 16;
/// How long such a run may be without a call: the client is gone, or comes back to a fresh one. Configurable.
pub const SESSION_IDLE: Duration = Duration::from_secs(10 * 60);
/// Changes of a server's list within this time cost one list.
pub const RELIST_DELAY: Duration = Duration::from_millis(200);
/// A server's prompts, its resources, or its templates: some thousands of them, a few hundred bytes each.
pub const MAX_LIST: usize = 2 * MIB;
/// How long a server that starts may take for a list that it can do without: calls wait meanwhile.
pub const LIST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a running server may take for a new list.
pub const RELIST_TIMEOUT: Duration = Duration::from_secs(60);
/// Between the steps of a stop: closed stdin, SIGTERM, SIGKILL.
pub const STOP_GRACE: Duration = Duration::from_secs(2);
/// How long a whole stop may take: both steps, and a moment for the system to bury the dead.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(6);
/// Restarts that a relay may have done within [`RELAY_RESTARTS_WINDOW`]: a person tries a few times.
pub const RELAY_RESTARTS: usize = 6;
/// See [`RELAY_RESTARTS`].
pub const RELAY_RESTARTS_WINDOW: Duration = Duration::from_secs(60);
/// Restarts that were asked for while the configuration is being read.
pub const MAX_PENDING_RESTARTS: usize = 64;

/// Revisions that a server says it speaks: there is about one a half-year.
pub const MAX_VERSIONS: usize = 64;
/// How long a process may leave `server/discover` unanswered before it counts as one of the legacy era, and is started
/// again for that: an installer (`npx`, `uvx`) that is at work would lose what it has done.
pub const DISCOVER_TIMEOUT: Duration = Duration::from_secs(20);
/// How often one call may come back with questions: a server that never has enough must not ask forever.
pub const MAX_ROUNDS: u32 = 16;
/// How long a legacy server's call is kept for a modern client's answers: a person may be away from the keyboard.
pub const PARKED_FOR: Duration = Duration::from_secs(10 * 60);
/// Calls of one caller that may be kept so.
pub const MAX_PARKED: usize = 16;
/// Params of one server's calls that are kept in case it asks something, or has to be asked anew for a subscription, in
/// bytes: what does not fit cannot be asked again.
pub const MAX_KEPT_PARAMS: usize = 16 * MIB;
/// The params of one `subscriptions/listen` that are kept, in bytes, at either end of the tunnel: it is asked for anew
/// when its server or its device comes back. A screen's worth of URIs and what a client says of itself; what is larger
/// ends with the process or the tunnel.
pub const MAX_KEPT_LISTEN: usize = 64 * KIB;
/// Resources, and tasks, that one `subscriptions/listen` may watch: it is a screen's worth, and each is a request to a legacy server.
pub const MAX_LISTENED: usize = 256;

/// How far the wall clock must run ahead of the monotonic one to count as sleep.
pub const SUSPEND_GAP: Duration = Duration::from_secs(5);
/// From a change of the network until its addresses can be used: routes and names follow within a second.
pub const NETWORK_SETTLES: Duration = Duration::from_secs(1);
/// Between two looks at the tunnel because the network changed: a machine whose containers come and go changes all day.
pub const NETWORK_PAUSE: Duration = Duration::from_secs(15);
/// Between two looks at both clocks.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// Entries of `NO_PROXY` that are read; people write tens.
pub const MAX_PROXY_EXCEPTIONS: usize = 256;
/// How long who was asked too often (429) is left alone when it does not say how long: a relay's own limits count by the
/// minute.
pub const TOO_MANY_LEAST: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is honoured.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(10 * 60);
/// Between attempts at a relay that has another device of this one's name, at least: it may go, or be renamed, and a
/// refused dial a minute costs a relay nothing.
pub const NAME_TAKEN_RETRY: Duration = Duration::from_secs(60);
/// Between attempts at a relay that does not take the sign-in for an agent's.
pub const RECONNECT_REFUSED: Duration = Duration::from_secs(60);

/// TCP connections of a relay at once: each costs up to some 20 KiB while it is idle, a tunnel 8. Configurable.
pub const MAX_CONNECTIONS: usize = 10_000;
/// Those of one address at once: an office behind one address has some hundreds, and ten attackers fill the relay.
/// Configurable.
pub const MAX_ADDRESS_CONNECTIONS: usize = 1_000;
/// Connections that are told why they are refused, at once: each holds a descriptor for [`REFUSAL_TIMEOUT`] at most.
pub const MAX_REFUSALS: usize = 64;
/// How long a client that is refused may take to read why.
pub const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a reply that wait for a client without any stream's credit: an answer of dialect V1 comes whole.
pub const MAX_UNTAKEN: usize = MAX_V1_MESSAGE + MIB;
/// Pieces of a reply that wait likewise: notifications to somebody who does not read.
pub const MAX_UNTAKEN_PIECES: usize = 4_096;
/// A token in a header: sealed ones have a few hundred bytes, and `MAX_HEADERS` must hold it with all the rest.
pub const MAX_TOKEN: usize = 8 * KIB;
/// How long an access token is taken to live when its issuer does not say.
pub const ACCESS_LIFETIME_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// An access token with less left than this is refreshed rather than used: it must outlive a dial.
pub const ACCESS_LEFT_MIN: Duration = Duration::from_secs(30);
/// The longest time before its expiry at which a running agent refreshes its access token.
pub const REFRESH_AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// Between attempts to refresh an access token that still works, while the relay is out of reach.
pub const REFRESH_RETRY: Duration = Duration::from_secs(30);
/// A token that is refused sooner than this after it was issued will not be mended by another like it.
pub const REFRESH_FUTILE: Duration = Duration::from_secs(30);
/// How often a relay may answer a refresh with 500 before it counts as a refusal: one of dialect V1 answers so when the
/// grant has expired.
pub const REFRESH_BROKEN_MAX: u32 = 3;
/// How long a probed endpoint may take for one answer: servers start slowly.
pub const PROBE_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a probe signs in: once, for more than that, and at another server when the endpoint has changed to one.
pub const PROBE_SIGN_INS: u32 = 3;
/// How many calls one run of a benchmark makes at most: enough for any quantile, in 16 MiB.
pub const BENCH_CALLS: u64 = 1_000_000;
/// After how many failures a caller of a benchmark gives up: what fails that often is no measurement, but a burden.
pub const BENCH_FAILURES: u64 = 20;
/// How long a caller of a benchmark waits after a failure, so that it does not hammer a server in trouble.
pub const BENCH_PAUSE: Duration = Duration::from_millis(100);
/// How long a person may take to sign in in the browser.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Between a device's questions for its tokens when the relay does not say, and what `slow_down` adds (RFC 8628).
pub const DEVICE_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
/// The longest time between a device's questions for its tokens: whoever signed in sees it act within a minute.
pub const DEVICE_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The longest time for which a code is shown and waited for, whatever the relay says.
pub const DEVICE_LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);
/// The longest code that a person is asked to type.
pub const MAX_USER_CODE: usize = 32;
/// A user's name that a relay tells an agent: an issuer's URL and a claim, with room to spare.
pub const MAX_USER_NAME: usize = KIB;
/// Between attempts to sign in while no token is needed: tokens that nobody refreshes run out in the end.
pub const SIGNIN_RETRY: Duration = Duration::from_secs(60);

/// Editors' sessions on one agent: each costs it a socket.
pub const MAX_SESSIONS: usize = 256;
/// How long a daemon outlives its last session (`DAEMON_GRACE_PERIOD_MS`): an editor that restarts finds it again.
pub const DAEMON_GRACE: Duration = Duration::from_secs(10);
/// The least time in which a new daemon's first session must come.
pub const DAEMON_FIRST_SESSION: Duration = Duration::from_secs(10);
/// Between two looks at who owns an agent's files.
pub const OWNER_INTERVAL: Duration = Duration::from_secs(5);

/// Between two looks for an agent that is about to come or to go.
pub const ATTACH_POLL: Duration = Duration::from_millis(50);
/// Between two looks for an agent that only a person brings back.
pub const ATTACH_LOOK: Duration = Duration::from_secs(2);
/// How long a new agent may take until it listens.
pub const DAEMON_START: Duration = Duration::from_secs(15);
/// How long the agent that replaces another may be waited for: a stop, a start, and a moment.
pub const DAEMON_REPLACED: Duration = Duration::from_secs(15);
/// How long an older agent is asked to make room before it is taken as it is.
pub const DAEMON_RETIRES: Duration = Duration::from_secs(15);
/// How long an agent may be silent before a stub ends it and starts another: a busy machine that swaps takes seconds.
pub const DAEMON_SILENT: Duration = Duration::from_secs(60);
/// Between attempts to start an agent that lacks what only a person gives: it may have been given unseen.
pub const UNABLE_AGAIN: Duration = Duration::from_secs(5 * 60);
/// Between two times that a browser is opened unasked.
pub const SIGNIN_AGAIN: Duration = Duration::from_secs(60 * 60);
/// Calls of the stub's tool that wait for the agent: each is answered within `STUB_CALL`.
pub const MAX_STUB_CALLS: usize = 64;
/// How long a call of the stub's tool waits for the agent.
pub const STUB_CALL: Duration = Duration::from_secs(10);
