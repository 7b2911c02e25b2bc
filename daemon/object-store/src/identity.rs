//! Who asks: the owner of keys that a client has brought, or the machine that this runs on.

use futures::future::BoxFuture;
use http::request::Parts;
use reqsign_command_execute_tokio::TokioCommandExecute;
use reqsign_core::{Context, OsEnv, ProvideCredential, SignRequest, Signer, SigningCredential};
use reqsign_file_read_tokio::TokioFileRead;
use reqsign_http_send_reqwest::ReqwestHttpSend;

use crate::error::Error;
use crate::http_client::HttpClient;
use crate::request::Sign;

/// Signs requests to one service, with credentials that it gets when there is something to sign.
#[derive(Clone)]
pub(crate) struct Identity<C: SigningCredential>(Signer<C>);

impl<C: SigningCredential> Identity<C> {
    /// One whose credentials are given.
    pub(crate) fn given(
        credentials: impl ProvideCredential<Credential = C>,
        signer: impl SignRequest<Credential = C>,
    ) -> Self {
        Self(Signer::new(Context::new(), credentials, signer))
    }

    /// One whose credentials for `service` are looked for on this machine: in the environment, in
    /// files, and at services that hand them out.
    pub(crate) fn of_machine(
        service: &'static str,
        credentials: impl ProvideCredential<Credential = C>,
        signer: impl SignRequest<Credential = C>,
        http: &HttpClient,
    ) -> Result<Self, Error> {
        let context = Context::new()
            .with_env(OsEnv)
            .with_file_read(TokioFileRead)
            .with_command_execute(TokioCommandExecute)
            .with_http_send(ReqwestHttpSend::new(http.for_credentials()?.clone()));
        Ok(Self(Signer::new(context, Required { service, credentials }, signer)))
    }
}

impl<C: SigningCredential> Sign for Identity<C> {
    fn sign<'a>(&'a self, parts: &'a mut Parts) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let refused = |error: reqsign_core::Error| Error::Credentials(error.to_string());
            self.0.sign(parts, None).await.map_err(refused)
        })
    }
}

/// Says of which service there are no credentials, where there are none.
#[derive(Debug)]
struct Required<P> {
    service: &'static str,
    credentials: P,
}

impl<P: ProvideCredential> ProvideCredential for Required<P> {
    type Credential = P::Credential;

    async fn provide_credential(
        &self,
        context: &Context,
    ) -> reqsign_core::Result<Option<Self::Credential>> {
        let found = self.credentials.provide_credential(context).await?;
        found.map(Some).ok_or_else(|| {
            reqsign_core::Error::credential_invalid(format!(
                "neither the client nor this machine has any for {}; where some were looked for in \
                 vain, the daemon's log says why",
                self.service
            ))
        })
    }
}
