//! A web server of a test's own, on loopback: what it answers is scripted, and what it was asked is
//! kept.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::served::{self, Served};

/// What there is at one path.
#[derive(Clone, Default)]
pub struct Page {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How much of the body is promised and never sent.
    missing: usize,
    authorization: Option<String>,
}

impl Page {
    /// A page with a body.
    pub fn new(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    /// With another status than 200.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With a header. A page with an `ETag` is not sent again to those who have it.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Breaks off before the end of the body.
    pub fn cut_off(mut self) -> Self {
        self.missing = 10;
        self
    }

    /// For those only who send this as their `Authorization`.
    pub fn authorization(mut self, value: &str) -> Self {
        self.authorization = Some(value.to_owned());
        self
    }
}

/// The server; it ends when it is dropped.
pub struct WebServer {
    served: Served,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pages: BTreeMap<String, Page>,
    /// Folders of files, by the path before them, and what they ask for as `Authorization`.
    folders: Vec<(String, PathBuf, Option<String>)>,
    asked: Vec<(String, String)>,
}

impl WebServer {
    /// Starts one without any pages.
    pub fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let server = shared.clone();
        let served = Served::start(served::listener(), move |stream| server.answer(stream));
        Self { served, shared }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.served.address())
    }

    /// Puts a page at a path, in place of what was there.
    pub fn page(&self, path: &str, page: Page) {
        self.shared.lock().pages.insert(path.to_owned(), page);
    }

    /// Puts the files of a folder below a path, for all or for those who send `authorization`.
    pub fn folder(&self, path: &str, folder: impl Into<PathBuf>, authorization: Option<&str>) {
        let folder = (path.to_owned(), folder.into(), authorization.map(str::to_owned));
        self.shared.lock().folders.push(folder);
    }

    /// The methods of the requests for a path so far.
    pub fn asked(&self, path: &str) -> Vec<String> {
        let state = self.shared.lock();
        let of_path = state.asked.iter().filter(|(_, asked)| asked == path);
        of_path.map(|(method, _)| method.clone()).collect()
    }

    /// How many requests there were so far for a path or what is below it.
    pub fn asked_below(&self, path: &str) -> usize {
        self.shared.lock().asked.iter().filter(|(_, asked)| asked.starts_with(path)).count()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one request and answers it.
    fn answer(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream).lines();
        let Some(first) = lines.next().transpose()? else { return Ok(()) };
        let mut words = first.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        let mut headers = BTreeMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let page = self.find(method, path);
        let sent = |name: &str| headers.get(name).map(String::as_str);
        let etag = page.headers.iter().find(|(name, _)| name == "ETag").map(|(_, etag)| etag);
        let (status, body) = match (&page.authorization, etag) {
            (Some(wanted), _) if sent("authorization") != Some(wanted) => (401, &[][..]),
            (_, Some(etag)) if sent("if-none-match") == Some(etag) => (304, &[][..]),
            _ => (page.status, page.body.as_slice()),
        };
        let mut answer = format!("HTTP/1.1 {status} -\r\nConnection: close\r\n");
        for (name, value) in &page.headers {
            answer += &format!("{name}: {value}\r\n");
        }
        if status != 304 {
            answer += &format!("Content-Length: {}\r\n", body.len() + page.missing);
        }
        answer += "\r\n";
        let mut stream = stream;
        stream.write_all(answer.as_bytes())?;
        if method != "HEAD" {
            stream.write_all(body)?;
        }
        stream.flush()
    }

    fn find(&self, method: &str, path: &str) -> Page {
        let mut state = self.lock();
        state.asked.push((method.to_owned(), path.to_owned()));
        if let Some(page) = state.pages.get(path) {
            return page.clone();
        }
        for (prefix, folder, authorization) in &state.folders {
            let Some(rest) = path.strip_prefix(prefix.as_str()) else { continue };
            let page = match std::fs::read(folder.join(rest.trim_start_matches('/'))) {
                Ok(body) => Page::new(body),
                Err(_) => Page::new("").status(404),
            };
            return Page { authorization: authorization.clone(), ..page };
        }
        Page::new("").status(404)
    }
}
