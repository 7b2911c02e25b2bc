//! Sessions: what clients serve to their builds.

mod agent;
mod auth;
mod content;
mod files;
mod secrets;
mod upload;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_proto::session::{Accepted, SessionInfo};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub(crate) use auth::SessionAuthenticator;

/// How long a build waits for its session to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);

/// A client's session.
#[derive(Debug)]
pub(crate) struct Session {
    info: SessionInfo,
    channel: Channel,
    closed: CancellationToken,
}

/// The client does not serve what a build needs.
#[derive(Debug, thiserror::Error)]
#[error("the client does not serve {method}, which this build needs")]
pub(crate) struct Unsupported {
    method: &'static str,
}

impl Session {
    pub(crate) fn id(&self) -> &str {
        &self.info.id
    }

    /// Identifies the client's context directory across builds; may be empty.
    pub(crate) fn shared_key(&self) -> &str {
        &self.info.shared_key
    }

    /// Ends with the client's connection.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn supports(&self, method: &str) -> bool {
        self.info.supports(method)
    }

    /// The connection, if the client serves `method`: others must not be called.
    pub(crate) fn channel_for(&self, method: &'static str) -> Result<Channel, Unsupported> {
        if self.supports(method) { Ok(self.channel.clone()) } else { Err(Unsupported { method }) }
    }
}

/// All sessions that are open.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<HashMap<String, Arc<Session>>>,
    arrived: Notify,
}

impl Sessions {
    /// Adds a session until its connection ends.
    pub(crate) fn add(self: &Arc<Self>, accepted: Accepted) -> kiln_proto::session::Outgoing {
        let Accepted { info, channel, outgoing, closed } = accepted;
        tracing::debug!(session = info.id, "session opened");
        let session = Arc::new(Session { info, channel, closed: closed.clone() });
        self.open.lock().insert(session.id().to_owned(), session.clone());
        self.arrived.notify_waiters();
        let sessions = Arc::downgrade(self);
        // Ends with the connection, which the daemon's shutdown closes.
        tokio::spawn(async move {
            closed.cancelled().await;
            tracing::debug!(session = session.id(), "session closed");
            let Some(sessions) = sessions.upgrade() else { return };
            let mut open = sessions.open.lock();
            // A client that reconnects under its old id has replaced this one.
            if open.get(session.id()).is_some_and(|current| Arc::ptr_eq(current, &session)) {
                open.remove(session.id());
            }
        });
        outgoing
    }

    /// How many sessions are open.
    pub(crate) fn count(&self) -> usize {
        self.open.lock().len()
    }

    /// The session of that id, which may still be on its way.
    pub(crate) async fn get(&self, id: &str) -> Option<Arc<Session>> {
        let wait = async {
            loop {
                let arrived = self.arrived.notified();
                if let Some(session) = self.open.lock().get(id) {
                    return session.clone();
                }
                arrived.await;
            }
        };
        tokio::time::timeout(ARRIVAL, wait).await.ok()
    }
}
