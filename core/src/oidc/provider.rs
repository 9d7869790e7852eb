//! What is known of the provider: its metadata and keys, fetched once for all who wait, and kept for a while.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use http::StatusCode;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreErrorResponseType,
    CoreGenderClaim, CoreGrantType, CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreResponseMode,
    CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse, CoreSubjectIdentifierType,
    CoreTokenIntrospectionResponse, CoreTokenResponse,
};
use openidconnect::{
    AdditionalProviderMetadata, AuthType, ClientId, ClientSecret, DiscoveryError, EmptyAdditionalClaims,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenVerifier, IssuerUrl,
    JsonWebKeySet, ProviderMetadata, RedirectUrl, StandardErrorResponse,
};

use super::LoginError;
use super::keys::Key;
use super::replay::{self, NotRecorded, Step};
use super::said::repeats;
use crate::config::Oidc;
use crate::http::endpoint;
use crate::http::fetch::{Fetch, FetchError, Fetched};
use crate::http::freshness::Bounds;
use crate::id::FetchId;
use crate::limits;
use crate::secret::Secret;
use crate::time::{Instant, Now};

/// The library's client for this provider: everything in it but the key type is the library's.
pub(super) type Client = openidconnect::Client<
    EmptyAdditionalClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    Key,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    CoreTokenResponse,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    Key,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

/// Members of the metadata that the library does not know.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
struct More {
    #[serde(default)]
    authorization_response_iss_parameter_supported: Option<bool>,
}

impl AdditionalProviderMetadata for More {}

/// The provider as its documents describe it.
pub(super) struct Known {
    /// Knows endpoints, keys and how to authenticate.
    pub(super) client: Client,
    /// Whether every callback carries `iss` (RFC 9207 section 3).
    pub(super) promises_iss: bool,
    /// What a login asks for.
    pub(super) scopes: Vec<String>,
    /// Where more claims can be had.
    pub(super) userinfo: Option<String>,
    metadata: Metadata,
    expires: Instant,
    keys_at: Instant,
}

impl Known {
    /// What judges an ID token that names the key `kid`. A provider that has one key, and no name for it, means that one
    /// by whatever name (RFC 7517 section 4.5 has names for those that have several).
    pub(super) fn verifier(&self, kid: Option<&str>) -> IdTokenVerifier<'_, Key> {
        let only = match self.metadata.jwks().keys().as_slice() {
            [only] => kid.and_then(|kid| only.named(kid)),
            _ => None,
        };
        let Some(key) = only else { return self.client.id_token_verifier() };
        let keys = JsonWebKeySet::new(Vec::from([key]));
        IdTokenVerifier::new_public_client(self.client.client_id().clone(), self.metadata.issuer().clone(), keys)
    }
}

/// The cache, and the one flight that fills it.
pub(super) struct Provider {
    config: Oidc,
    redirect_uri: String,
    known: Option<Known>,
    flight: Option<(FetchId, Flight)>,
    keys_tried: Option<Instant>,
}

/// What the fetch under way is for.
enum Flight {
    /// Metadata, then keys: the responses so far.
    Discovery(Vec<HttpResponse>),
    /// Keys alone.
    Keys,
}

/// What must be fetched now; nothing when the answer is at hand, or on its way already.
pub(super) type Next = Option<(FetchId, Fetch)>;

impl Provider {
    pub(super) fn new(config: Oidc, redirect_uri: String) -> Self {
        Self { config, redirect_uri, known: None, flight: None, keys_tried: None }
    }

    pub(super) fn config(&self) -> &Oidc {
        &self.config
    }

    /// The provider, unless its documents have to be fetched first.
    pub(super) fn known(&self, now: Now) -> Option<&Known> {
        self.known.as_ref().filter(|known| now.instant < known.expires)
    }

    /// The provider as it was known last: what a login that is under way goes on with when the documents run out.
    pub(super) const fn latest(&self) -> Option<&Known> {
        self.known.as_ref()
    }

    /// Whether `fetch` is the one under way here.
    pub(super) fn owns(&self, fetch: FetchId) -> bool {
        self.flight.as_ref().is_some_and(|(own, _)| *own == fetch)
    }

    /// Begins to fetch the provider's documents, unless a fetch is under way.
    pub(super) fn discover(&mut self, now: Now, next_fetch: &mut u64) -> Result<Next, LoginError> {
        if self.flight.is_some() { Ok(None) } else { self.fly(Vec::new(), now, next_fetch) }
    }

    /// Begins to fetch the keys again, unless a fetch is under way, and at most once a minute: keys that were read a
    /// moment ago are right, and the token that names another is wrong.
    pub(super) fn refetch_keys(&mut self, now: Now, next_fetch: &mut u64) -> Result<Next, LoginError> {
        if self.flight.is_some() {
            return Ok(None);
        }
        let unknown = LoginError::Token { cause: "its key is unknown" };
        let Some(known) = &self.known else { return Err(unknown) };
        let last = self.keys_tried.map_or(known.keys_at, |tried| tried.max(known.keys_at));
        if now.instant.saturating_since(last) < limits::PROVIDER_KEYS_RETRY {
            return Err(unknown);
        }
        let step = replay::run(&[], |client| JsonWebKeySet::<Key>::fetch(known.metadata.jwks_uri(), &client));
        let Ok(Step::Wants(request)) = step else { return Err(unknown) };
        self.keys_tried = Some(now.instant);
        self.order(*request, Flight::Keys, next_fetch)
    }

    /// Takes the end of the fetch under way in: either one more is needed, or whoever waited may go on, or must be told
    /// why not.
    pub(super) fn handle_fetched(
        &mut self,
        result: Result<Fetched, FetchError>,
        now: Now,
        next_fetch: &mut u64,
    ) -> Result<Next, LoginError> {
        let flight = self.flight.take();
        let fetched = answered(&self.config.issuer, result)?;
        match flight {
            Some((_, Flight::Discovery(mut recorded))) => {
                recorded.push(replay::response(fetched));
                self.fly(recorded, now, next_fetch)
            }
            Some((_, Flight::Keys)) => self.replace_keys(fetched, now).map(|()| None),
            None => Ok(None),
        }
    }

    /// Carries discovery as far as the recorded responses go.
    fn fly(&mut self, recorded: Vec<HttpResponse>, now: Now, next_fetch: &mut u64) -> Result<Next, LoginError> {
        let issuer = self.issuer()?;
        let step = replay::run(&recorded, |client| Metadata::discover(&issuer, &client));
        match step.map_err(|error| self.discovery_error(&error))? {
            Step::Wants(request) => self.order(*request, Flight::Discovery(recorded), next_fetch),
            Step::Done(metadata) => {
                let lifetime = recorded.iter().map(|response| KEPT.lifetime(response.headers())).min();
                let expires = now.instant + lifetime.unwrap_or(limits::PROVIDER_CACHE_MIN);
                self.learn(*metadata, expires, now)?;
                Ok(None)
            }
        }
    }

    fn order(&mut self, request: HttpRequest, flight: Flight, next_fetch: &mut u64) -> Result<Next, LoginError> {
        let Some(fetch) = replay::fetch(request) else {
            return Err(self.broken("an endpoint is neither https nor on this machine"));
        };
        let id = take(next_fetch);
        self.flight = Some((id, flight));
        Ok(Some((id, fetch)))
    }

    /// The configured issuer as a URL that tokens may be sent to. It has no query (OpenID Connect Discovery section 3)
    /// and no `#`, so that `<issuer>#<claim>` names one person only.
    fn issuer(&self) -> Result<IssuerUrl, LoginError> {
        let usable = endpoint::secure(&self.config.issuer).is_some_and(|url| url.query().is_none());
        let issuer = usable.then(|| IssuerUrl::new(self.config.issuer.clone()).ok()).flatten();
        issuer.ok_or_else(|| self.broken("`auth.issuer` is neither an https URL nor one on this machine"))
    }

    fn replace_keys(&mut self, fetched: Fetched, now: Now) -> Result<(), LoginError> {
        let Some(known) = &self.known else { return Err(self.broken("its keys came before its metadata")) };
        let response = [replay::response(fetched)];
        let step = replay::run(&response, |client| JsonWebKeySet::fetch(known.metadata.jwks_uri(), &client));
        match step.map_err(|error| self.discovery_error(&error))? {
            Step::Done(keys) => self.learn(known.metadata.clone().set_jwks(*keys), known.expires, now),
            Step::Wants(_) => Err(self.broken("its keys cannot be read")),
        }
    }

    fn learn(&mut self, metadata: Metadata, expires: Instant, now: Now) -> Result<(), LoginError> {
        if endpoint::secure(metadata.authorization_endpoint()).is_none() {
            return Err(self.broken("its authorization endpoint is neither https nor on this machine"));
        }
        if metadata.token_endpoint().is_none() {
            return Err(self.broken("it has no token endpoint"));
        }
        let Ok(redirect) = RedirectUrl::new(self.redirect_uri.clone()) else {
            return Err(self.broken("the relay's own public URL is not a URL"));
        };
        let secret = self.config.client_secret.as_ref().map(|secret| ClientSecret::new(secret.expose().to_string()));
        let client =
            Client::from_provider_metadata(metadata.clone(), ClientId::new(self.config.client_id.clone()), secret)
                .set_auth_type(self.authentication(&metadata)?)
                .set_redirect_uri(redirect);
        let promise = metadata.additional_metadata().authorization_response_iss_parameter_supported;
        self.known = Some(Known {
            client,
            promises_iss: promise == Some(true),
            scopes: self.scopes(&metadata),
            userinfo: metadata.userinfo_endpoint().map(|url| url.to_string()),
            metadata,
            expires,
            keys_at: now.instant,
        });
        Ok(())
    }

    /// What a login asks for: what is configured, or what the configuration cannot do without.
    fn scopes(&self, metadata: &Metadata) -> Vec<String> {
        if let Some(scopes) = &self.config.scopes {
            return scopes.clone();
        }
        // `email` is OpenID Connect's own; `groups` is not, and some providers refuse what they do not know.
        let offers = |name: &str| metadata.scopes_supported().is_some_and(|all| all.iter().any(|one| **one == *name));
        let email = self.config.needs_email().then_some("email");
        let groups = (self.config.needs_groups() && offers("groups")).then_some("groups");
        ["openid"].into_iter().chain(email).chain(groups).map(ToString::to_string).collect()
    }

    /// How the relay authenticates at the token endpoint; without a list, basic is meant (OpenID Connect Discovery
    /// section 3). A public client names itself in the body whatever this says.
    fn authentication(&self, metadata: &Metadata) -> Result<AuthType, LoginError> {
        use CoreClientAuthMethod::{ClientSecretBasic, ClientSecretPost};
        match metadata.token_endpoint_auth_methods_supported() {
            None => Ok(AuthType::BasicAuth),
            Some(methods) if methods.contains(&ClientSecretBasic) => Ok(AuthType::BasicAuth),
            Some(methods) if methods.contains(&ClientSecretPost) => Ok(AuthType::RequestBody),
            Some(_) if self.config.client_secret.is_none() => Ok(AuthType::RequestBody),
            Some(_) => Err(self.broken("it takes a client secret neither as basic authentication nor in the body")),
        }
    }

    fn discovery_error(&self, error: &DiscoveryError<NotRecorded>) -> LoginError {
        self.broken(match error {
            // It quotes both issuers, which is what finds a slash too many.
            DiscoveryError::Validation(mismatch) => {
                let secret = self.config.client_secret.as_ref().map_or("", Secret::expose);
                let quoted = printable(mismatch, MAX_MISMATCH);
                let shown = if repeats(&quoted, &[secret]) { "its discovery document is another's" } else { &quoted };
                return self.broken(shown);
            }
            DiscoveryError::Response(StatusCode::NOT_FOUND, ..) => "there is no discovery document (404)",
            DiscoveryError::Response(status, ..) if status.is_redirection() => {
                "it sends elsewhere for its discovery document or keys (a redirect, which is not followed)"
            }
            DiscoveryError::Response(StatusCode::OK, ..) => "its discovery document or keys are not JSON",
            DiscoveryError::Response(..) => "it refuses to show its discovery document or keys",
            DiscoveryError::Parse(_) => "its discovery document or keys cannot be read",
            _ => "discovery failed",
        })
    }

    fn broken(&self, cause: &str) -> LoginError {
        LoginError::Provider { issuer: self.config.issuer.clone(), cause: cause.to_string() }
    }
}

/// The response, unless the provider is out of reach or out of order for the moment.
pub(super) fn answered(issuer: &str, result: Result<Fetched, FetchError>) -> Result<Fetched, LoginError> {
    let cause = match result {
        Ok(fetched) if passing(fetched.status) => alloc::format!("it answered {}", fetched.status.as_u16()),
        Ok(fetched) => return Ok(fetched),
        Err(error) => error.to_string(),
    };
    Err(LoginError::Unreachable { issuer: issuer.to_string(), cause })
}

/// Draws the next number.
pub(super) fn take(next_fetch: &mut u64) -> FetchId {
    let id = FetchId(*next_fetch);
    *next_fetch = next_fetch.wrapping_add(1);
    id
}

/// Text of another party as people may be shown it: printable ASCII, capped.
pub(super) fn printable(text: &str, max: usize) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).take(max).collect()
}

fn passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// For how long its documents are kept.
const KEPT: Bounds = Bounds {
    least: limits::PROVIDER_CACHE_MIN,
    usual: limits::PROVIDER_CACHE_DEFAULT,
    most: limits::PROVIDER_CACHE_MAX,
};
/// Two URLs and a few words.
const MAX_MISMATCH: usize = 512;
