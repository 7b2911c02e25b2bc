//! Logins that the daemon asks for when a registry asks it.

use super::Notices;
use super::credentials::Credentials;
use crate::paths::random_id;
use kiln_proto::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse, auth_server,
};
use kiln_proto::control::{StatusResponse, Vertex};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;
use tonic::{Request, Response, Status};

/// Gives logins, and shows that it does. Tokens are left to the daemon, so that this program needs
/// no HTTP client.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
    notices: Option<Notices>,
    /// Registries of which the user has been told.
    told: Mutex<BTreeSet<String>>,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials, notices: Option<Notices>) -> Self {
        Self { credentials, notices, told: Mutex::default() }
    }

    /// Shows that a login leaves this machine, once for each registry.
    fn tell(&self, host: &str) {
        let Some(notices) = &self.notices else { return };
        if !self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned()) {
            return;
        }
        let now = Some(SystemTime::now().into());
        let vertex = Vertex {
            digest: random_id(32),
            name: format!("[auth] sharing credentials for {host}"),
            started: now,
            completed: now,
            ..Vertex::default()
        };
        // If the view is that far behind, it can do without.
        let _ = notices
            .try_send(StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() });
    }
}

fn no_tokens<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("this client does not fetch tokens"))
}

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let login = self
            .credentials
            .login(&host)
            .await
            .map_err(|error| Status::unknown(format!("credentials for {host}: {error}")))?;
        if !login.secret.is_empty() {
            self.tell(&host);
        }
        Ok(Response::new(CredentialsResponse { username: login.username, secret: login.secret }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        no_tokens()
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        no_tokens()
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        no_tokens()
    }
}
