//! Reads a program's output while it runs, so that a test can wait for a line of it.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Everything that a stream has said so far.
#[derive(Clone, Default)]
pub(crate) struct Tap {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    heard: Mutex<Heard>,
    changed: Condvar,
}

#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Tap {
    /// Follows `stream` to its end on a thread of its own.
    pub(crate) fn on(mut stream: impl Read + Send + 'static) -> Self {
        let tap = Self::default();
        let writer = tap.clone();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            loop {
                let read = stream.read(&mut buffer).unwrap_or(0);
                let mut heard = writer.lock();
                heard.bytes.extend_from_slice(&buffer[..read]);
                heard.is_over = read == 0;
                writer.shared.changed.notify_all();
                if heard.is_over {
                    return;
                }
            }
        });
        tap
    }

    /// What has been said so far, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Waits for the end of the stream and returns all of it; what there is after `limit`.
    pub(crate) fn finish(&self, limit: Duration) -> Vec<u8> {
        self.wait(limit, |heard| heard.is_over.then(|| heard.bytes.clone()))
            .unwrap_or_else(|| self.lock().bytes.clone())
    }

    /// Waits for a line that `is_it` and returns it. Nothing if the stream ended, or `limit` passed,
    /// without one.
    pub(crate) fn line(&self, is_it: impl Fn(&str) -> bool, limit: Duration) -> Option<String> {
        self.wait(limit, |heard| {
            let text = String::from_utf8_lossy(&heard.bytes);
            let found = text
                .split_inclusive('\n')
                .filter_map(|line| line.strip_suffix('\n'))
                .find(|line| is_it(line))
                .map(|line| Some(line.trim_end().to_owned()));
            found.or_else(|| heard.is_over.then_some(None))
        })
        .flatten()
    }

    /// Waits for `text`; false if the stream ended, or `limit` passed, without it.
    pub(crate) fn text_with(&self, text: &str, limit: Duration) -> bool {
        let found = self.wait(limit, |heard| {
            let has = String::from_utf8_lossy(&heard.bytes).contains(text);
            (has || heard.is_over).then_some(has)
        });
        found.unwrap_or(false)
    }

    fn wait<T>(&self, limit: Duration, mut done: impl FnMut(&Heard) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut heard = self.lock();
        loop {
            if let Some(result) = done(&heard) {
                return Some(result);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            heard = self
                .shared
                .changed
                .wait_timeout(heard, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.shared.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
