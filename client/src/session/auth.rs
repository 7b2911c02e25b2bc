//! Logins that the daemon asks for when a registry asks it.

use super::credentials::Credentials;
use kiln_proto::auth::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse, auth_server,
};
use tonic::{Request, Response, Status};

/// Gives logins. Tokens are left to the daemon, so that this program needs no HTTP client.
#[derive(Debug)]
pub(crate) struct Auth {
    credentials: Credentials,
}

impl Auth {
    pub(crate) fn new(credentials: Credentials) -> Self {
        Self { credentials }
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
