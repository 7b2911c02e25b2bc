//! A server that answers as a test says, down to the last byte.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Where the `Range` begins; 0 without one.
    pub(crate) fn offset(&self) -> usize {
        let range = self.header("range").unwrap_or("bytes=0-");
        range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
    }
}

/// An answer; the connection is closed after it.
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    length: Option<u64>,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), length: None }
    }

    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200).body(body)
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.length = Some(self.body.len() as u64);
        self
    }

    /// Announces another length than the body has.
    pub(crate) fn length(mut self, length: u64) -> Self {
        self.length = Some(length);
        self
    }

    /// Announces no length: the body ends with the connection.
    pub(crate) fn unannounced(mut self) -> Self {
        self.length = None;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    fn into_bytes(self) -> Vec<u8> {
        let mut lines = vec![format!("HTTP/1.1 {} Whatever", self.status)];
        lines.push("Connection: close".to_owned());
        lines.extend(self.length.map(|length| format!("Content-Length: {length}")));
        lines.extend(self.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let mut bytes = (lines.join("\r\n") + "\r\n\r\n").into_bytes();
        bytes.extend(self.body);
        bytes
    }
}

type Script = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// A server on loopback; stops when dropped.
pub(crate) struct Scripted {
    host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// `script` gets each request and how many came before it.
    pub(crate) async fn start(
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let requests = Arc::<Mutex<Vec<Request>>>::default();
        let script: Arc<Script> = Arc::new(script);
        let seen = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { host, requests, task }
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn image(&self, name: &str) -> kiln_registry::ImageRef {
        super::image(&format!("{}/{name}", self.host))
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    /// Method and target of what was asked so far.
    pub(crate) fn log(&self) -> Vec<String> {
        let line = |request: &Request| format!("{} {}", request.method, request.target);
        self.requests.lock().iter().map(line).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, script: Arc<Script>, seen: Arc<Mutex<Vec<Request>>>) {
    let mut stream = BufReader::new(stream);
    let Some(request) = read(&mut stream).await else { return };
    let count = {
        let mut seen = seen.lock();
        seen.push(request.clone());
        seen.len() - 1
    };
    let reply = script(&request, count).into_bytes();
    // The client may have hung up, which is its right.
    let _ = stream.write_all(&reply).await;
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|&read| read > 0)?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let mut first = lines.first()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |value| value.parse().unwrap());
    request.body = vec![0; length];
    stream.read_exact(&mut request.body).await.ok()?;
    Some(request)
}
