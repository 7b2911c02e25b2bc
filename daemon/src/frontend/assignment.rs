//! A frontend at work: what it was asked for, and what it looks at on the way to its answer.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::graph::Edge;
use crate::provenance::ImageSource;
use crate::solver::{Build, Snapshot, SolveError};

/// What a frontend was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// Its name; empty where the client asks itself.
    pub(crate) frontend: String,
    pub(crate) options: BTreeMap<String, String>,
    /// Named inputs that are graphs themselves; `None` is scratch.
    pub(crate) inputs: BTreeMap<String, Option<Edge>>,
}

/// A build as one request sees it. What is read and resolved for the request is noted, so that the
/// provenance of its answer can tell; requests that it makes of other frontends are below it.
pub(crate) struct Assignment {
    build: Arc<Build>,
    /// What is answered; none where a client works with graphs of its own.
    request: Option<Request>,
    /// What the client asked the daemon for, which may take several requests.
    root: Arc<Request>,
    /// How many requests it is below.
    depth: usize,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    files: Vec<Edge>,
    images: Vec<ImageSource>,
    below: Vec<Arc<Assignment>>,
}

impl Assignment {
    /// The outermost assignment of a build that was asked for `root`.
    pub(crate) fn new(build: Arc<Build>, root: Request) -> Arc<Self> {
        let root = Arc::new(root);
        Arc::new(Self { build, request: None, root, depth: 0, seen: Mutex::default() })
    }

    /// The assignment of a request that is made for this one.
    pub(crate) fn below(&self, request: Request) -> Arc<Self> {
        let (build, root) = (self.build.clone(), self.root.clone());
        let (request, depth) = (Some(request), self.depth + 1);
        let work = Arc::new(Self { build, request, root, depth, seen: Mutex::default() });
        self.seen.lock().below.push(work.clone());
        work
    }

    pub(crate) fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// How many requests led to this one.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn root(&self) -> &Request {
        &self.root
    }

    /// The files of `edge`, which are looked at for the answer, as far as the build's source policy
    /// has them.
    pub(crate) async fn look_at(&self, edge: &Edge) -> Result<Snapshot, SolveError> {
        let edge = self.build.admit(edge).await?;
        let snapshot = self.build.solve(&edge).await?;
        self.seen.lock().files.push(edge);
        Ok(snapshot)
    }

    /// Notes an image whose config was read.
    pub(crate) fn note_image(&self, image: ImageSource) {
        self.seen.lock().images.push(image);
    }

    /// All that was looked at, also in requests below.
    pub(crate) fn files(&self) -> Vec<Edge> {
        let (mut files, below) = {
            let seen = self.seen.lock();
            (seen.files.clone(), seen.below.clone())
        };
        files.extend(below.iter().flat_map(|work| work.files()));
        files
    }

    /// All images whose configs were read, also in requests below.
    pub(crate) fn images(&self) -> Vec<ImageSource> {
        let (mut images, below) = {
            let seen = self.seen.lock();
            (seen.images.clone(), seen.below.clone())
        };
        images.extend(below.iter().flat_map(|work| work.images()));
        images
    }
}

impl Deref for Assignment {
    type Target = Arc<Build>;

    fn deref(&self) -> &Arc<Build> {
        &self.build
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment").field("request", &self.request).finish_non_exhaustive()
    }
}
