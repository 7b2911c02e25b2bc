//! A server on loopback that keeps objects as three services do: S3, Azure Blob Storage, and the
//! cache of GitHub Actions in both of its protocols.
//!
//! It is small and strict: every request has to be signed as the service's reference says (computed
//! here from the reference, not with the library that the daemon signs with), sizes and digests that
//! are announced have to be true, and what the services refuse is refused.

mod azure;
mod github;
mod request;
mod s3;

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use azure::{CLIENT_SECRET, FEDERATED_TOKEN};
use request::{Answer, Request};

use crate::served::{self, Served};

/// The name of the account and of the key that lets clients in.
pub const ACCESS_KEY: &str = "AKIDEXAMPLE";
/// The key.
pub const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// Goes with the key.
pub const SESSION_TOKEN: &str = "session/token==";

/// The server; it ends when it is dropped.
pub struct ObjectServer {
    served: Served,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    address: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By path.
    objects: BTreeMap<String, Object>,
    /// Parts or blocks of objects that are not complete, by the upload and the part's name.
    parts: BTreeMap<(String, String), Vec<u8>>,
    /// Entries of GitHub's cache, in the order in which they were reserved.
    entries: Vec<github::Entry>,
    /// Method and path, with the query that says what is meant.
    asked: Vec<String>,
    /// How many more requests for objects are answered with "too many requests".
    busy: usize,
}

#[derive(Clone)]
struct Object {
    bytes: Vec<u8>,
    modified: SystemTime,
}

impl Object {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, modified: SystemTime::now() }
    }
}

impl ObjectServer {
    /// Starts one with a bucket `cache`, no container and no entries.
    pub fn start() -> Self {
        let listener = served::listener();
        let address = served::address(&listener);
        let shared = Arc::new(Shared { address, ..Shared::default() });
        let server = shared.clone();
        let served = Served::start(listener, move |stream| server.serve(stream));
        Self { served, shared }
    }

    /// What makes a cache one in the server's bucket, in either direction.
    pub fn s3(&self) -> String {
        format!(
            "type=s3,bucket=cache,region=eu-test-1,endpoint_url=http://{},use_path_style=true,\
             prefix=app/",
            self.served.address()
        )
    }

    /// The same with the key that lets clients in.
    pub fn s3_with_key(&self) -> String {
        let key = format!("access_key_id={ACCESS_KEY},secret_access_key={SECRET_KEY}");
        format!("{},{key},session_token={SESSION_TOKEN}", self.s3())
    }

    /// What makes a cache one in a container of the server's account.
    pub fn azblob(&self) -> String {
        format!(
            "type=azblob,account_url=http://{}/{ACCESS_KEY},account_name={ACCESS_KEY},\
             secret_access_key={},prefix=app",
            self.served.address(),
            azure::secret()
        )
    }

    /// The address of the server's account in Azure, and of those who hand out tokens for it: to a
    /// machine, and to applications of a tenant called `tenant`, of which one is called `client`.
    pub fn azure(&self) -> [String; 3] {
        let address = format!("http://{}", self.served.address());
        [format!("{address}/{ACCESS_KEY}"), format!("{address}{}", azure::METADATA), address]
    }

    /// The variables that a job of GitHub Actions finds in its environment.
    pub fn job(&self, is_v2: bool) -> Vec<(&'static str, String)> {
        let url = format!("http://{}/", self.served.address());
        let mut variables = vec![("ACTIONS_RUNTIME_TOKEN", github::token())];
        if is_v2 {
            variables.push(("ACTIONS_CACHE_SERVICE_V2", "true".to_owned()));
            variables.push(("ACTIONS_RESULTS_URL", url));
        } else {
            variables.push(("ACTIONS_CACHE_URL", url));
        }
        variables
    }

    /// How often a method was used on something with `part` in its path or query.
    pub fn asked(&self, method: &str, part: &str) -> usize {
        let state = self.shared.lock();
        let is_meant = |asked: &&String| {
            asked.split_once(' ').is_some_and(|(m, path)| m == method && path.contains(part))
        };
        state.asked.iter().filter(is_meant).count()
    }

    /// Changes the content of all objects and entries with `part` in their names; returns how many.
    pub fn change(&self, part: &str, change: impl Fn(&mut Vec<u8>)) -> usize {
        let mut state = self.shared.lock();
        let State { objects, entries, .. } = &mut *state;
        let objects = objects.iter_mut().filter(|(path, _)| path.contains(part));
        let entries = entries.iter_mut().filter(|entry| entry.key.contains(part));
        let contents = objects.map(|(_, object)| &mut object.bytes);
        contents.chain(entries.map(|entry| &mut entry.bytes)).map(change).count()
    }

    /// Makes all objects older.
    pub fn age(&self, by: Duration) {
        for object in self.shared.lock().objects.values_mut() {
            object.modified -= by;
        }
    }

    /// Answers the next requests for objects with "too many requests".
    pub fn be_busy(&self, times: usize) {
        self.shared.lock().busy = times;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        let Some(request) = Request::read(stream)? else { return Ok(()) };
        let mut state = self.lock();
        state.asked.push(format!("{} {}", request.method, request.target));
        let path = request.path.as_str();
        let answer = if state.busy > 0 {
            state.busy -= 1;
            Answer::new(429).header("Retry-After", "0")
        } else if path.starts_with("/_apis/") || path.starts_with("/twirp/") {
            github::answer(&mut state, &request, &self.address)
        } else if path.starts_with("/entries/") {
            github::answer_entry(&mut state, &request)
        } else if [azure::METADATA, azure::TENANT].contains(&path) {
            azure::answer_identity(&request)
        } else if path.starts_with(&format!("/{ACCESS_KEY}/")) {
            azure::answer(&mut state, &request)
        } else {
            s3::answer(&mut state, &request)
        };
        drop(state);
        // BuildKit's client relies on it.
        let answer = answer.header("x-ms-request-id", "1");
        answer.send(stream, &request)
    }
}
