//! The way back from the login provider: answers that belong to another browser, another provider, or nobody.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::support::browser::{Browser, parameter};
use super::support::oauth::{consent, location, register};
use super::support::{Relay, Reply};
use super::{Attack, ensure, stays_here};

pub const ATTACKS: &[Attack] = &[
    ("answer for another browser", |relay| {
        let begun = Begun::at(relay, &mut Browser::new(relay));
        untouched(|| Browser::new(relay).get(&begun.back("code=stolen")))
    }),
    ("answer without a request", |relay| {
        for query in ["code=x&state=x", "code=x", "state=", "", "code=x&state=../../x", "error=access_denied&state=y"] {
            untouched(|| Browser::new(relay).get(&format!("/callback?{query}")))?;
        }
        Ok(())
    }),
    ("answer of one tab for another", |relay| {
        let mut browser = Browser::new(relay);
        let (one, other) = (Begun::at(relay, &mut browser), Begun::at(relay, &mut browser));
        let forged = format!("/callback?code=x&state={}&state={}&iss={}", one.state, other.state, provider().issuer());
        untouched(|| browser.get(&forged))
    }),
    ("answer of another provider", |relay| {
        let mut browser = Browser::new(relay);
        let begun = Begun::at(relay, &mut browser);
        untouched(|| browser.get(&format!("/callback?code=x&state={}&iss=https%3A%2F%2Fevil.example", begun.state)))
    }),
    ("answer that hides its provider", |relay| {
        let mut browser = Browser::new(relay);
        let begun = Begun::at(relay, &mut browser);
        untouched(|| browser.get(&format!("/callback?code=x&state={}", begun.state)))
    }),
    ("script in the provider's error", |relay| {
        let mut browser = Browser::new(relay);
        let begun = Begun::at(relay, &mut browser);
        let evil = "error=%3Cscript%3Ealert(1)%3C%2Fscript%3E&error_description=%3Cimg%20src%3Dx%3E";
        let text = browser.get(&begun.back(evil)).text();
        ensure(!text.contains("<script") && !text.contains("<img"), || text.clone())
    }),
    ("ID token without a signature", |relay| {
        signs_nobody_in(relay, |begun| token(&json!({"alg": "none"}), &claims(begun), b""))
    }),
    ("ID token signed with the client's id as its key", |relay| {
        signs_nobody_in(relay, |begun| {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"mcp-local-tunnel");
            let header = json!({"alg": "HS256"});
            let signed = ring::hmac::sign(&key, unsigned(&header, &claims(begun)).as_bytes());
            token(&header, &claims(begun), signed.as_ref())
        })
    }),
    ("ID token signed by nobody known", |relay| {
        signs_nobody_in(relay, |begun| token(&json!({"alg": "RS256", "kid": "k"}), &claims(begun), &[7; 256]))
    }),
    ("no ID token at all", |relay| signs_nobody_in(relay, |_| String::new())),
];

/// A login provider that is asked for everything and vouches for nobody.
pub struct Provider {
    port: u16,
    /// How often a code was brought to it.
    codes: AtomicUsize,
    id_token: Mutex<String>,
}

static PROVIDER: OnceLock<Arc<Provider>> = OnceLock::new();

impl Provider {
    pub fn start() -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports");
        let port = listener.local_addr().expect("it is bound").port();
        let provider = Arc::new(Self { port, codes: AtomicUsize::new(0), id_token: Mutex::default() });
        assert!(PROVIDER.set(Arc::clone(&provider)).is_ok(), "there is one");
        let serving = Arc::clone(&provider);
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| serving.serve(stream)));
        provider
    }

    /// The relay's `auth`.
    pub fn login(&self) -> Value {
        json!({"auth": {"issuer": self.issuer()}})
    }

    /// An honest code does reach it: so "it was not asked" means something.
    pub fn is_asked_by(&self, relay: &Relay) {
        let mut browser = Browser::new(relay);
        let begun = Begun::at(relay, &mut browser);
        let before = self.codes.load(Ordering::SeqCst);
        browser.get(&begun.back("code=honest"));
        assert_eq!(self.codes.load(Ordering::SeqCst), before + 1);
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn serve(&self, stream: TcpStream) {
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        let mut path = String::new();
        while stream.read_line(&mut line).is_ok_and(|read| read > 0) && !line.trim().is_empty() {
            if path.is_empty() {
                path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = text.trim().parse().expect("a length");
            }
            line.clear();
        }
        drop(stream.read_exact(&mut vec![0; length]));
        let issuer = self.issuer();
        let answer = match path.as_str() {
            "/.well-known/openid-configuration" => json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"], "code_challenge_methods_supported": ["S256"],
                "authorization_response_iss_parameter_supported": true,
            }),
            "/jwks" => json!({"keys": []}),
            _ => {
                self.codes.fetch_add(1, Ordering::SeqCst);
                let id_token = self.id_token.lock().expect("no writer panics").clone();
                json!({"access_token": "a", "token_type": "Bearer", "expires_in": 60, "id_token": id_token})
            }
        };
        let body = answer.to_string();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        drop(stream.get_mut().write_all(format!("{head}{body}").as_bytes()));
    }
}

/// A login that was begun: the browser is at the provider.
struct Begun {
    state: String,
    nonce: String,
}

impl Begun {
    fn at(relay: &Relay, browser: &mut Browser<'_>) -> Self {
        let to = location(&consent(browser, &register(relay)));
        assert!(to.starts_with(&provider().issuer()), "{to}");
        let part = |name| parameter(&to, name).unwrap_or_else(|| panic!("{name} in {to}"));
        Self { state: part("state"), nonce: part("nonce") }
    }

    /// The way back with these parameters.
    fn back(&self, parameters: &str) -> String {
        let iss = provider().issuer().replace(':', "%3A").replace('/', "%2F");
        format!("/callback?{parameters}&state={}&iss={iss}", self.state)
    }
}

fn provider() -> &'static Provider {
    PROVIDER.get().expect("it was started")
}

/// The provider is not even asked.
fn untouched(attack: impl FnOnce() -> Reply) -> Result<(), String> {
    let before = provider().codes.load(Ordering::SeqCst);
    let reply = attack();
    let asked = provider().codes.load(Ordering::SeqCst) - before;
    ensure(asked == 0, || "the code was exchanged".into())?;
    ensure(!reply.header("location").unwrap_or_default().contains("code="), || format!("{reply:?}"))?;
    if reply.status == 303 { Ok(()) } else { stays_here(&reply).or_else(|how| ensure(reply.status == 502, || how)) }
}

/// Whatever the provider's token endpoint says with such a token, no code comes of it.
fn signs_nobody_in(relay: &Relay, forge: impl FnOnce(&Begun) -> String) -> Result<(), String> {
    let mut browser = Browser::new(relay);
    let begun = Begun::at(relay, &mut browser);
    *provider().id_token.lock().expect("no reader panics") = forge(&begun);
    let reply = browser.get(&begun.back("code=good"));
    let code = reply.header("location").and_then(|to| parameter(to, "code"));
    ensure(code.is_none() && reply.status >= 300, || format!("signed in: {reply:?}"))
}

/// What a token of this provider would say of a good login.
fn claims(begun: &Begun) -> Value {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    json!({
        "iss": provider().issuer(), "sub": "ada", "aud": "mcp-local-tunnel", "nonce": begun.nonce,
        "iat": now, "exp": now + 600,
    })
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn token(header: &Value, claims: &Value, signature: &[u8]) -> String {
    format!("{}.{}", unsigned(header, claims), URL_SAFE_NO_PAD.encode(signature))
}
