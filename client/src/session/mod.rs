//! What the client serves to the daemon while it builds.
//!
//! [`Services`] collects it: directories and blobs to read, places for what is exported,
//! credentials, secrets and agents. Nothing is served that the build was not given.

mod agent;
mod auth;
mod content;
mod credentials;
mod engine;
mod file_send;
mod file_sync;
mod layout;
mod receive;
mod scoped;
mod secrets;
mod tree;
mod upload;

#[cfg(test)]
mod tests;

pub(crate) use content::Stores;
pub(crate) use credentials::Credentials;
pub(crate) use engine::Engine;
pub(crate) use file_send::Target;
pub(crate) use layout::{Layout, LayoutError, Name};
pub(crate) use secrets::MAX_SIZE as MAX_SECRET;
pub(crate) use upload::{Body, URL_PREFIX};

use crate::args::secret::Secret;
use agent::Agents;
use auth::Auth;
use content::Content;
use file_send::FileSend;
use file_sync::FileSync;
use kiln_proto::auth::auth_server::AuthServer;
use kiln_proto::content::content_server::ContentServer;
use kiln_proto::control::StatusResponse;
use kiln_proto::file_send::file_send_server::FileSendServer;
use kiln_proto::filesync::file_sync_server::FileSyncServer;
use kiln_proto::secrets::secrets_server::SecretsServer;
use kiln_proto::session::{MAX_MESSAGE, methods};
use kiln_proto::ssh::ssh_server::SshServer;
use kiln_proto::upload::upload_server::UploadServer;
use secrets::Secrets;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::sync::mpsc;
use tonic::service::Routes;
use upload::Upload;

/// Takes progress of this end.
pub(crate) type Notices = mpsc::Sender<StatusResponse>;

/// What a build may use of the client's machine.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// Directories by the names under which the daemon asks for them.
    pub(crate) directories: BTreeMap<String, PathBuf>,
    /// Where exports go, by the position of their exporter.
    pub(crate) targets: BTreeMap<usize, Target>,
    /// Content stores by the names under which the daemon asks for them.
    pub(crate) stores: Stores,
    /// Logins at registries.
    pub(crate) credentials: Credentials,
    /// Secrets that steps may mount.
    pub(crate) secrets: Vec<Secret>,
    /// Sockets of ssh agents by the names that steps ask for.
    pub(crate) agents: BTreeMap<String, PathBuf>,
    /// Is told what is done here that the user should see.
    pub(crate) notices: Option<Notices>,
    /// A stream that the daemon fetches as if from a web server, by the end of its URL.
    pub(crate) upload: Option<(String, Body)>,
}

impl Services {
    /// The services, and the methods that the daemon may call.
    pub(crate) fn into_routes(self) -> (Routes, Vec<String>) {
        let (_, health) = tonic_health::server::health_reporter();
        let auth = AuthServer::new(Auth::new(self.credentials, self.notices));
        let mut routes = Routes::new(health).add_service(auth);
        let mut served = vec![methods::HEALTH, methods::CREDENTIALS];

        if !self.directories.is_empty() {
            let service = FileSyncServer::new(FileSync::new(self.directories));
            routes = routes.add_service(service.max_decoding_message_size(MAX_MESSAGE));
            served.push(methods::FILE_SYNC);
        }
        if !self.targets.is_empty() {
            let service = FileSendServer::new(FileSend::new(self.targets));
            routes = routes.add_service(service.max_decoding_message_size(MAX_MESSAGE));
            served.push(methods::FILE_SEND);
        }
        if !self.stores.is_empty() {
            let service = ContentServer::new(Content::new(self.stores));
            routes = routes.add_service(service.max_decoding_message_size(MAX_MESSAGE));
            served.extend(content::METHODS);
        }
        if !self.secrets.is_empty() {
            routes = routes.add_service(SecretsServer::new(Secrets::new(self.secrets)));
            served.push(methods::SECRET);
        }
        if !self.agents.is_empty() {
            routes = routes.add_service(SshServer::new(Agents::new(self.agents)));
            served.extend([methods::CHECK_AGENT, methods::FORWARD_AGENT]);
        }
        if let Some((path, body)) = self.upload {
            routes = routes.add_service(UploadServer::new(Upload::new(path, body)));
            served.push(methods::UPLOAD);
        }
        (routes, served.into_iter().map(str::to_owned).collect())
    }
}
