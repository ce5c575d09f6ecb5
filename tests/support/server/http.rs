//! HTTP in front of what is held: routes, keys, compressed bodies, and faults.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::Shared;
use super::fault::{Answer, Kind, Storm, Wait, due};
use super::graphql::prepare;
use super::schema::{Context as Resolving, answer};
use super::state::{RequestRecord, RunKey, StoredFile, StreamBody, ViolationKind, steps_of};

/// Serves until it is dropped.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    let router = Router::new().fallback(handle).with_state(shared);
    axum::serve(Resettable(listener), router.into_make_service_with_connect_info::<Connection>()).await
}

/// What is said to a client.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn json(status: u16, value: &Value) -> Self {
        let headers = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: value.to_string() }
    }

    fn error(status: u16, message: impl Into<String>) -> Self {
        Self::json(status, &json!({"errors": [{"message": message.into()}]}))
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let connection = request.extensions().get::<ConnectInfo<Connection>>().map(|info| info.0.clone()).unwrap();
    let (head, body) = request.into_parts();
    if let Some(record) = reset_early(&shared, &head.method, head.uri.path()) {
        shared.change(|world| world.requests.push(record));
        connection.reset.store(true, Ordering::SeqCst);
        return Response::new(Body::empty());
    }
    let Ok(body) = axum::body::to_bytes(body, usize::MAX).await else {
        return Response::new(Body::empty());
    };
    let call = Call::new(&head.method, head.uri.path(), head.uri.query().unwrap_or_default(), head.headers, body);
    if call.path == "/__state" {
        return respond(Reply { status: 200, headers: Vec::new(), body: shared.dump() });
    }
    shared.before_each();
    let index = shared.change(|world| {
        let at = shared.started.elapsed();
        world.requests.push(RequestRecord { at, ..call.record.clone() });
        world.requests.len() - 1
    });
    let fault = shared.change(|world| {
        let fault = due(&mut world.faults, &call.kind(), false);
        fault.or_else(|| world.storm.as_mut().and_then(Storm::strike))
    });
    match fault.as_ref().map(|fault| &fault.wait) {
        Some(Wait::For(time)) => tokio::time::sleep(*time).await,
        Some(Wait::Until(gate)) => gate.passed().await,
        _ => {}
    }
    let own = |fault: &super::fault::Fault| fault.applied || matches!(fault.answer, Answer::Own);
    let reply = if fault.as_ref().is_none_or(own) { Some(call.carry_out(&shared)) } else { None };
    let mut pieces = None;
    let reply = match fault.as_ref().map(|fault| fault.answer.clone()) {
        None | Some(Answer::Own) => reply,
        Some(Answer::Slowly) => {
            pieces = Some(Pieces::Slow);
            reply
        }
        // Of nothing, there is no beginning.
        Some(Answer::Cut) if reply.as_ref().is_some_and(|reply| !reply.body.is_empty()) => {
            pieces = Some(Pieces::Cut);
            reply
        }
        Some(Answer::Status { code, headers, body }) => Some(Reply { status: code, headers, body }),
        Some(Answer::Reset | Answer::Cut) => {
            connection.reset.store(true, Ordering::SeqCst);
            None
        }
    };
    let reply = reply.map(|mut reply| {
        reply.headers.extend(fault.iter().flat_map(|fault| fault.headers.clone()));
        reply
    });
    shared.change(|world| {
        let record = &mut world.requests[index];
        record.faulted = fault.is_some();
        record.status = Some(reply.as_ref().map_or(0, |reply| reply.status));
    });
    reply.map_or_else(|| Response::new(Body::empty()), |reply| respond_in(reply, pieces))
}

/// The record of a request that is to be reset before it is read.
fn reset_early(shared: &Shared, method: &Method, path: &str) -> Option<RequestRecord> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (kind, run) = match parts.as_slice() {
        ["files", _, _, run, "file_stream"] => (Kind::FileStream(run), Some((*run).to_owned())),
        ["storage", ..] => (Kind::Storage(path), None),
        _ => (Kind::Other, None),
    };
    shared.change(|world| due(&mut world.faults, &kind, true))?;
    let at = shared.started.elapsed();
    let (method, path) = (method.to_string(), path.to_owned());
    Some(RequestRecord { at, method, path, run, faulted: true, status: Some(0), ..RequestRecord::default() })
}

/// How an answer comes that does not come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pieces {
    Slow,
    Cut,
}

fn respond_in(reply: Reply, pieces: Option<Pieces>) -> Response {
    let Some(pieces) = pieces else { return respond(reply) };
    let body = reply.body.clone().into_bytes();
    let length = body.len();
    let kept = if pieces == Pieces::Cut { length / 2 } else { length };
    let body = Piecemeal { body: body[..kept].to_vec(), at: 0, then_break: pieces == Pieces::Cut };
    let mut response = respond(Reply { body: String::new(), ..reply });
    *response.body_mut() = Body::from_stream(tokio_util::io::ReaderStream::new(body));
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

/// Bytes that come one by one, and may break off.
struct Piecemeal {
    body: Vec<u8>,
    at: usize,
    then_break: bool,
}

impl AsyncRead for Piecemeal {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let piece = self.body.len() / 8 + 1;
        let end = (self.at + piece).min(self.body.len());
        if self.at == end && self.then_break {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let end = end.min(self.at + into.remaining());
        into.put_slice(&self.body[self.at..end]);
        self.at = end;
        Poll::Ready(Ok(()))
    }
}

fn respond(reply: Reply) -> Response {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(reply.body)).unwrap()
}

/// One request, sorted out.
struct Call {
    path: String,
    query: String,
    headers: HeaderMap,
    body: Bytes,
    record: RequestRecord,
    graphql: Option<Value>,
    stream: Option<RunKey>,
    /// Why the body could not be read.
    broken: Option<String>,
}

impl Call {
    fn new(method: &Method, path: &str, query: &str, headers: HeaderMap, body: Bytes) -> Self {
        let text = |name: header::HeaderName| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let mut record = RequestRecord {
            method: method.to_string(),
            path: path.to_owned(),
            bytes: body.len(),
            gzip: text(header::CONTENT_ENCODING) == "gzip",
            authorization: headers.contains_key(header::AUTHORIZATION),
            user_agent: text(header::USER_AGENT),
            ..RequestRecord::default()
        };
        let mut broken = None;
        let body = if record.gzip {
            let mut plain = Vec::new();
            if let Err(error) = io::copy(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain) {
                broken = Some(format!("not gzip: {error}"));
            }
            Bytes::from(plain)
        } else {
            body
        };
        let mut graphql = None;
        let mut stream = None;
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(unescape).collect();
        match parts.as_slice() {
            [one] if one == "graphql" => match serde_json::from_slice::<Value>(&body) {
                Ok(value) => {
                    record.operation = Some(operation_name(&value));
                    record.variables = value.get("variables").cloned();
                    graphql = Some(value);
                }
                Err(error) => broken = Some(error.to_string()),
            },
            [files, entity, project, run, end] if files == "files" && end == "file_stream" => {
                record.run = Some(run.clone());
                stream = Some((entity.clone(), project.clone(), run.clone()));
            }
            _ => {}
        }
        Self { path: path.to_owned(), query: query.to_owned(), headers, body, record, graphql, stream, broken }
    }

    fn kind(&self) -> Kind<'_> {
        if let Some(operation) = &self.record.operation {
            Kind::Graphql(operation)
        } else if let Some((_, _, run)) = &self.stream {
            Kind::FileStream(run)
        } else if self.path.starts_with("/storage/") {
            Kind::Storage(&self.path)
        } else {
            Kind::Other
        }
    }

    fn carry_out(self, shared: &Shared) -> Reply {
        if let Some(why) = &self.broken {
            shared.change(|world| world.complain(ViolationKind::BadRequest, &self.path, why));
            return Reply::error(400, why);
        }
        let post = self.record.method == "POST";
        if self.path.starts_with("/storage/") {
            return self.upload(shared);
        }
        if self.path.starts_with("/sdk/otel/") {
            return Reply::json(200, &json!({}));
        }
        let known = self.graphql.is_some() || self.stream.is_some();
        if !post || !known {
            return Reply::error(404, "not found");
        }
        if !self.key_is_right(shared) {
            return Reply::error(401, "user is not logged in");
        }
        if let Some(request) = &self.graphql { self.query(shared, request) } else { self.stream(shared) }
    }

    fn key_is_right(&self, shared: &Shared) -> bool {
        let sent = self.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match &shared.options.key {
            None => !sent.is_empty(),
            Some(key) => sent == format!("Basic {}", base64::prelude::BASE64_STANDARD.encode(format!("api:{key}"))),
        }
    }

    fn query(&self, shared: &Shared, request: &Value) -> Reply {
        let query = request.get("query").and_then(Value::as_str).unwrap_or_default();
        let name = request.get("operationName").and_then(Value::as_str).filter(|name| !name.is_empty());
        let variables = request.get("variables").and_then(Value::as_object).cloned();
        match prepare(query, name, &variables.unwrap_or_default()) {
            Err(error) => {
                shared.change(|world| world.complain(ViolationKind::BadRequest, "", format!("{error}: {query}")));
                Reply::error(400, error)
            }
            Ok(operation) => shared.change(|world| {
                let mut resolving = Resolving { world, options: &shared.options, url: &shared.url };
                match answer(&mut resolving, &operation) {
                    Ok(data) => Reply::json(200, &json!({"data": data})),
                    Err(message) => Reply::json(200, &json!({"data": null, "errors": [{"message": message}]})),
                }
            }),
        }
    }

    fn stream(self, shared: &Shared) -> Reply {
        let Some(key) = self.stream else { return Reply::error(404, "not found") };
        let gzip_offered = shared.options.features.contains("FILESTREAM_GZIP");
        if self.record.gzip && !gzip_offered {
            let text = "gzip was not offered";
            shared.change(|world| world.complain(ViolationKind::BadRequest, &self.path, text));
        }
        let body: StreamBody = match serde_json::from_slice(&self.body) {
            Ok(body) => body,
            Err(error) => {
                let text = error.to_string();
                shared.change(|world| world.complain(ViolationKind::BadRequest, &self.path, text.as_str()));
                return Reply::error(400, text);
            }
        };
        drop(self.body);
        let history = body.files.get("wandb-history.jsonl");
        let steps = match history {
            Some(chunk) if shared.options.check_rows => steps_of(&chunk.content),
            _ => Vec::new(),
        };
        let run = key.2.clone();
        let (found, stopped) = shared.change(|world| {
            // The record is the newest of this run without an answer: one request of a run is in flight at a time.
            let record = world.requests.iter_mut().rev();
            let mut record = record.filter(|record| record.run.as_ref() == Some(&run) && record.status.is_none());
            if let Some(record) = record.next() {
                let chunks = body.files.iter();
                record.lines = chunks.map(|(name, chunk)| (name.clone(), chunk.offset, chunk.content.len())).collect();
                record.complete = body.complete == Some(true);
            }
            (world.stream(&key, body, &steps), world.stopped.contains(&run))
        });
        match (found, stopped) {
            (false, _) => Reply::error(404, "no such run"),
            (true, true) => Reply::json(200, &json!({"exitcode": null, "limits": {}, "stopped": true})),
            (true, false) => Reply::json(200, &json!({"exitcode": null, "limits": {}})),
        }
    }

    fn upload(self, shared: &Shared) -> Reply {
        let complain = |kind, text: &str| shared.change(|world| world.complain(kind, &self.path, text));
        if self.record.authorization {
            complain(ViolationKind::AuthorizationOnStorage, "an Authorization header came with an upload");
        }
        let signature = self.query.split('&').find_map(|pair| pair.strip_prefix("signature="));
        let grant = signature.and_then(|signature| shared.change(|world| world.grants.get(signature).cloned()));
        let (true, Some(grant)) = (self.record.method == "PUT", grant) else {
            complain(ViolationKind::BadUpload, "no such address was given out");
            return Reply::error(403, "the signature does not match");
        };
        for wanted in &grant.headers {
            let (name, value) = wanted.split_once(':').unwrap_or((wanted, ""));
            if self.headers.get(name).and_then(|sent| sent.to_str().ok()) != Some(value.trim()) {
                complain(ViolationKind::BadUpload, &format!("the header `{wanted}` is missing"));
            }
        }
        if !self.headers.contains_key(header::CONTENT_LENGTH) {
            complain(ViolationKind::BadUpload, "no Content-Length");
        }
        let sha256 = hex(&sha2::Sha256::digest(&self.body));
        let kept = (self.body.len() <= shared.options.keep_bytes).then(|| self.body.clone());
        let file = StoredFile { size: self.body.len(), sha256: sha256.clone(), uploads: 1, bytes: kept };
        let stored = shared.change(|world| world.store(grant.target, file, self.body.clone()));
        if let Err(why) = stored {
            complain(ViolationKind::BadUpload, &why);
            return Reply::error(400, why);
        }
        Reply { status: 200, headers: vec![("ETag".to_owned(), format!("\"{sha256}\""))], body: String::new() }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn operation_name(request: &Value) -> String {
    let given = request.get("operationName").and_then(Value::as_str).filter(|name| !name.is_empty());
    let query = request.get("query").and_then(Value::as_str).unwrap_or_default();
    // Only the name matters here; what is wrong with the variables is told when the request is carried out.
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let mut after = words.skip_while(|word| *word != "query" && *word != "mutation").skip(1);
    given.or_else(|| after.next()).unwrap_or_default().to_owned()
}

fn unescape(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(code) if byte == b'%' => {
                bytes.push(code);
                rest = &after[2..];
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A way to reset the connection that a request came by.
#[derive(Debug, Clone)]
struct Connection {
    reset: Arc<AtomicBool>,
}

impl Connected<IncomingStream<'_, Resettable>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Resettable>) -> Self {
        Self { reset: stream.io().reset.clone() }
    }
}

struct Resettable(TcpListener);

impl Listener for Resettable {
    type Io = Stream;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Stream, Self::Addr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    // Small answers must not wait for acknowledgements of earlier ones.
                    let _ = stream.set_nodelay(true);
                    return (Stream { stream, reset: Arc::default() }, address);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection that answers nothing but a reset once it is told to.
struct Stream {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Stream {
    fn broken(&self) -> Option<io::Error> {
        self.reset.load(Ordering::SeqCst).then(|| {
            // Closing with a linger time of zero sends a reset instead of an orderly end.
            let _ = self.stream.set_zero_linger();
            io::Error::from(io::ErrorKind::ConnectionReset)
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.broken() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.broken() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Only for the variables of requests that are looked at in tests.
impl RequestRecord {
    pub fn variable(&self, name: &str) -> Value {
        let variables = self.variables.as_ref().and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
        variables.get(name).cloned().unwrap_or_default()
    }
}
