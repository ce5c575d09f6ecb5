//! The HTTP client: one pool of connections, one budget, one loop of tries for every call.
//!
//! TLS is always verified, against the system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured) and the user's own
//! CAs. A redirect is followed only within the same scheme, host and port, so the key cannot leave the host. The body of
//! an answer is bounded before memory is taken.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::OnceCell;
use tracing::{debug, warn};
use url::Url;

use crate::api::ApiKey;
use crate::api::answer::{Got, follow_within_the_host, is_hopeless, no_answer, why};
use crate::api::app_url::app_url;
use crate::api::body::Body;
use crate::api::budget::Budget;
use crate::api::error::{ApiError, message_of, shown};
use crate::api::outage::{GivingUp, Outage, Weather};
use crate::api::patience::{Begun, Patience};
use crate::api::retry::{Answer, Call, RetryPolicy, Verdict, judge};
use crate::api::viewer::Features;

/// The longest answer that is read: a `RunResumeStatus` carries config, summary and lines.
const LONGEST_ANSWER: usize = 256 << 20;

/// So many answers that are none are taken for bad luck, less one.
const ODD_ANSWERS: u32 = 3;

/// So many tries in vain are no chance: they speak for other calls too.
const CONVINCING: u32 = 3;

/// Never reached through a proxy.
const THIS_MACHINE: &str = "localhost,127.0.0.0/8,::1";

/// All that a client is built from.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// The API's base URL, such as `https://api.wandb.ai`.
    pub base_url: Url,
    /// The base of the addresses that people look at, without a trailing slash.
    pub app_url: String,
    /// The key.
    pub api_key: ApiKey,
    /// How patient calls are.
    pub retry: RetryPolicy,
    /// Whether calls try on after one of them tried to the end and nothing answered any.
    pub giving_up: GivingUp,
    /// How long one try may take.
    pub timeouts: Timeouts,
    /// PEM files with certificates of further authorities.
    pub ca_files: Vec<PathBuf>,
    /// Proxies that replace those of the environment.
    pub proxies: Proxies,
    /// Requests a second over all runs, where the user set a limit; 0 is none. Whatever it is, the server's answers lower it.
    pub requests_per_second: Option<f64>,
    /// Sent as the official client does.
    pub username: Option<String>,
    /// Sent as the official client does.
    pub email: Option<String>,
    /// Whether lines are compressed where the server offers it.
    pub gzip: bool,
}

impl ApiOptions {
    /// The usual options for a server and a key.
    pub fn new(base_url: Url, api_key: ApiKey) -> Self {
        Self {
            app_url: app_url(base_url.as_str().trim_end_matches('/')),
            base_url,
            api_key,
            retry: RetryPolicy::default(),
            giving_up: GivingUp::default(),
            timeouts: Timeouts::default(),
            ca_files: Vec::new(),
            proxies: Proxies::default(),
            requests_per_second: None,
            username: None,
            email: None,
            gzip: true,
        }
    }
}

/// How long one try may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// To reach a host.
    pub connect: Duration,
    /// A GraphQL operation.
    pub graphql: Duration,
    /// A request of the file stream.
    pub file_stream: Duration,
    /// A file; larger ones get a second more for every 64 KiB.
    pub transfer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            graphql: Duration::from_secs(30),
            file_stream: Duration::from_secs(180),
            transfer: Duration::from_secs(300),
        }
    }
}

/// Proxies by the scheme of the URL; `None` leaves it to the environment.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// For `http` URLs.
    pub http: Option<Url>,
    /// For `https` URLs.
    pub https: Option<Url>,
    /// Hosts that are reached without these, as in `NO_PROXY`. This machine itself always is.
    pub except: String,
}

/// A client of one W&B server. Shared by all runs.
#[derive(Debug)]
pub struct ApiClient {
    http: Client,
    options: ApiOptions,
    budget: Budget,
    weather: Weather,
    authorization: HeaderValue,
    pub(crate) features: OnceCell<Features>,
}

/// One request as it is sent, as often as needed.
pub(crate) struct Outgoing<'a> {
    pub(crate) call: Call,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body<'a>,
    pub(crate) timeout: Option<Duration>,
    /// Whether it goes to the API host: then it carries the key and takes from the budget.
    pub(crate) to_api: bool,
}

impl ApiClient {
    /// Builds the client. Nothing is sent yet.
    pub fn new(options: ApiOptions) -> Result<Self, ApiError> {
        // It may be installed already, by another client or by the program around this library.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = options.base_url.clone();
        let mut builder = Client::builder()
            .user_agent(concat!("wandb-bridge/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.timeouts.connect)
            .redirect(redirect::Policy::custom(follow_within_the_host));
        let mut authorities = Vec::new();
        for path in &options.ca_files {
            let wrong = |why: String| ApiError::Options(format!("cannot use the CA file `{}`: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            authorities.extend(authorities_in(&pem).map_err(wrong)?);
        }
        if !authorities.is_empty() {
            builder = builder.tls_certs_merge(authorities);
        }
        let wrong = |error| ApiError::Options(format!("cannot use the proxy: {}", why(&error)));
        let without = || reqwest::NoProxy::from_string(&format!("{},{THIS_MACHINE}", options.proxies.except));
        // One of our own switches off those that the HTTP library would find for both schemes.
        if let Some(proxy) = &options.proxies.http {
            builder = builder.proxy(reqwest::Proxy::http(proxy.clone()).map_err(wrong)?.no_proxy(without()));
        }
        if let Some(proxy) = &options.proxies.https {
            builder = builder.proxy(reqwest::Proxy::https(proxy.clone()).map_err(wrong)?.no_proxy(without()));
        }
        let http = builder.build().map_err(|error| ApiError::Options(why(&error)))?;
        debug!(server = %shown(&base), "client built");
        let budget = Budget::new(options.requests_per_second.unwrap_or_default());
        let authorization = options.api_key.authorization();
        let weather = Weather::default();
        Ok(Self { http, options, budget, weather, authorization, features: OnceCell::new() })
    }

    /// Tells of outages of the API, from many threads.
    #[must_use]
    pub fn telling(self, listener: impl Fn(&Outage) + Send + Sync + 'static) -> Self {
        self.weather.listen(Box::new(listener));
        self
    }

    /// The base of the addresses that people look at.
    pub fn app_url(&self) -> &str {
        &self.options.app_url
    }

    /// The server's base URL.
    pub fn base_url(&self) -> &Url {
        &self.options.base_url
    }

    /// Requests a second over all runs, where the user set a limit; 0 is none.
    pub fn requests_per_second(&self) -> Option<f64> {
        self.options.requests_per_second
    }

    /// Whether lines are to be compressed where the server offers it.
    pub(crate) fn wants_gzip(&self) -> bool {
        self.options.gzip
    }

    pub(crate) fn options(&self) -> &ApiOptions {
        &self.options
    }

    /// A URL below the base, with each part escaped as one path segment.
    pub(crate) fn url(&self, parts: &[&str]) -> Result<Url, ApiError> {
        let mut url = self.options.base_url.clone();
        url.set_query(None);
        url.set_fragment(None);
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(parts);
            }
            Err(()) => return Err(ApiError::Options(format!("`{}` is no base URL", self.options.base_url))),
        }
        Ok(url)
    }

    /// Sends one request until it succeeds or is not worth another try.
    pub(crate) async fn send(&self, out: Outgoing<'_>, patience: &impl Patience) -> Result<Bytes, ApiError> {
        self.send_for_answer(out, patience).await.map(|got| got.body)
    }

    /// The same, for who wants to know more of the answer than its body.
    pub(crate) async fn send_for_answer(&self, out: Outgoing<'_>, patience: &impl Patience) -> Result<Got, ApiError> {
        let place = shown(&out.url);
        let _begun = Begun::new(patience);
        let cancel = patience.token();
        let mut waits = self.options.retry.waits();
        let first = tokio::time::Instant::now();
        let mut tries = 0_u32;
        let mut odd = 0_u32;
        let mut first_try = None;
        let together = out.to_api && self.options.giving_up == GivingUp::Together;
        loop {
            if together && let Some(error) = self.weather.in_vain(self.options.retry.wait_max) {
                return Err(error);
            }
            tries += 1;
            let once = async {
                if out.to_api {
                    self.budget.take().await;
                }
                let body = out.body.begin().await?;
                let began = tokio::time::Instant::now();
                Ok::<_, ApiError>((began, self.once(&out, body).await))
            };
            let (began, got) = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(ApiError::Cancelled),
                got = once => got?,
            };
            let first_try = *first_try.get_or_insert(began);
            let is_odd = got.as_ref().is_ok_and(|got| got.is_odd(&out));
            odd += u32::from(is_odd);
            let answer = match &got {
                // A page of something in between, which may be gone at the next try.
                Ok(_) if is_odd && odd < ODD_ANSWERS => Answer::Nothing,
                Ok(_) if is_odd => Answer::Hopeless,
                Ok(got) => {
                    Answer::Status { status: got.status, retry_after: got.retry_after.as_deref(), body: &got.body }
                }
                Err(error) if is_hopeless(error) => Answer::Hopeless,
                Err(_) => Answer::Nothing,
            };
            let verdict = judge(out.call, answer, first.elapsed(), SystemTime::now());
            let is_absent = got.as_ref().map_or(true, Got::is_from_nobody);
            if out.to_api && got.is_ok() {
                match verdict {
                    Verdict::Done | Verdict::Fatal => self.weather.answered(),
                    Verdict::Again(_) if !is_absent => self.weather.reached(),
                    Verdict::Again(_) => {}
                }
            }
            let in_vain = together && is_absent && self.weather.is_given_up();
            let wait = match verdict {
                Verdict::Done => return got.map_err(|error| no_answer(&place, &error)),
                // This try was to see whether it is back.
                Verdict::Again(_) if in_vain => None,
                Verdict::Again(asked) => waits.next().map(|wait| asked.unwrap_or(wait)),
                Verdict::Fatal => None,
            };
            let error = match got {
                Ok(got) if is_odd => {
                    let why = format!("this is no answer of a W&B server: {}", message_of(&got.body));
                    ApiError::Protocol { place: place.clone(), why }
                }
                Ok(got) => {
                    ApiError::Status { status: got.status, place: place.clone(), message: message_of(&got.body) }
                }
                Err(error) => no_answer(&place, &error),
            };
            let Some(wait) = wait else {
                debug!(%place, tries, %error, "request failed");
                if out.to_api && is_absent && verdict != Verdict::Fatal && (in_vain || tries >= CONVINCING) {
                    self.weather.gave_up(first_try, &error);
                }
                return Err(error);
            };
            if out.to_api {
                self.weather.failed(began, wait, &error, self.options.retry.retries);
            }
            debug!(%place, tries, %error, wait = wait.as_secs_f64(), "request will be tried again");
            patience.rests(wait);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(ApiError::Cancelled),
                () = self.weather.given_up(), if together => {}
                () = tokio::time::sleep(wait) => {}
            }
            patience.goes_on().await?;
        }
    }

    async fn once(&self, out: &Outgoing<'_>, body: reqwest::Body) -> Result<Got, reqwest::Error> {
        let mut request =
            self.http.request(out.method.clone(), out.url.clone()).headers(out.headers.clone()).body(body);
        if let Some(timeout) = out.timeout {
            request = request.timeout(timeout);
        }
        if out.to_api {
            request = request.header(AUTHORIZATION, self.authorization.clone());
        }
        let mut response = request.send().await.map_err(reqwest::Error::without_url)?;
        let status = response.status().as_u16();
        let number = |name: &str| {
            let number = response.headers().get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
            number.filter(|number| number.is_finite())
        };
        if out.to_api {
            self.budget.learn(status, number("ratelimit-remaining"), number("ratelimit-reset"));
        }
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (retry_after, etag) = (text(RETRY_AFTER), text(ETAG));
        let html = text(CONTENT_TYPE).is_some_and(|kind| kind.trim_start().starts_with("text/html"));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            let room = LONGEST_ANSWER.saturating_sub(body.len());
            body.extend_from_slice(chunk.get(..room.min(chunk.len())).unwrap_or_default());
        }
        Ok(Got { status, retry_after, etag, html, body: body.into() })
    }
}

/// The certificates of a PEM file. Bundles gather what is old and odd: one that cannot be used costs only itself.
fn authorities_in(pem: &[u8]) -> Result<Vec<reqwest::Certificate>, String> {
    let mut store = rustls::RootCertStore::empty();
    let (mut found, mut unusable) = (Vec::new(), None);
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let usable = certificate.map_err(|error| error.to_string()).and_then(|certificate| {
            store.add(certificate.clone()).map_err(|error| error.to_string())?;
            reqwest::Certificate::from_der(&certificate).map_err(|error| why(&error))
        });
        match usable {
            Ok(certificate) => found.push(certificate),
            Err(why) => {
                warn!(%why, "a certificate in a CA file cannot be used");
                unusable.get_or_insert(why);
            }
        }
    }
    match unusable {
        Some(why) if found.is_empty() => Err(format!("it holds no certificate that can be used: {why}")),
        None if found.is_empty() => Err("it holds no certificate".to_owned()),
        _ => Ok(found),
    }
}

/// Headers of a JSON request.
pub(crate) fn json_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

/// A header from texts that somebody else chose; `None` when they cannot be one.
pub(crate) fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, HeaderValue::from_str(value.trim()).ok()?))
}
