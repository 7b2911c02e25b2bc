//! One build: the session, the request and its progress, all at once.

use super::call;
use super::interrupt::Interrupts;
use super::request::Plan;
use crate::daemon::Daemon;
use crate::failure::{self, Refused};
use crate::progress::{Progress, TICK};
use crate::session::Services;
use futures::StreamExt;
use kiln_proto::control::{SolveRequest, StatusRequest, StatusResponse};
use kiln_proto::session::{self, SessionInfo};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

/// Progress that is silent for so long after the build's end is not waited for any more.
const SILENCE: Duration = Duration::from_secs(5);

/// How many notices of the session may wait to be shown.
const NOTICES: usize = 16;

/// What a build told when it was done.
pub(super) type Response = BTreeMap<String, String>;

/// How a build did not succeed.
#[derive(Debug)]
pub(super) enum NotBuilt {
    /// It failed.
    Failed(anyhow::Error),
    /// The user ended it.
    Interrupted(anyhow::Error),
}

/// Runs a build to its end, and shows its progress.
pub(super) async fn solve(
    daemon: &Daemon,
    plan: &mut Plan,
    progress: &mut Progress,
    interrupts: &mut Interrupts,
) -> Result<Response, NotBuilt> {
    let (notices, noticed) = mpsc::channel(NOTICES);
    plan.services.notices = Some(notices);
    let session = Session::open(daemon, std::mem::take(&mut plan.services), &plan.shared_key);
    plan.request.session.clone_from(&session.id);
    let answer = answer(daemon, plan);
    let status = status(daemon, &plan.request.r#ref);
    follow(answer, status, noticed, session, progress, interrupts).await
}

/// The daemon's answer to a build, or to a question.
fn answer(
    daemon: &Daemon,
    plan: &Plan,
) -> impl Future<Output = Result<Response, Status>> + 'static + use<> {
    let daemon = daemon.clone();
    let request: SolveRequest = plan.request.clone();
    let call = plan.call.clone();
    async move {
        if let Some(call) = call {
            return call::ask(&daemon, request, &call).await;
        }
        let response = daemon.control().solve(request).await?;
        Ok(response.into_inner().exporter_response)
    }
}

/// The build's progress, from its start.
fn status(
    daemon: &Daemon,
    build: &str,
) -> impl futures::Stream<Item = Result<StatusResponse, Status>> + use<> {
    let mut control = daemon.control();
    let request = StatusRequest { r#ref: build.to_owned() };
    let opening = async move { control.status(request).await.map(tonic::Response::into_inner) };
    futures::stream::once(opening).flat_map(|opened| match opened {
        Ok(stream) => stream.left_stream(),
        Err(status) => futures::stream::once(std::future::ready(Err(status))).right_stream(),
    })
}

/// The session, which is served while the build runs.
struct Session {
    id: String,
    serving: Option<AbortOnDropHandle<Result<(), session::ServeError>>>,
    /// Ends the session when it is dropped.
    _stop: oneshot::Sender<()>,
}

impl Session {
    fn open(daemon: &Daemon, services: Services, shared_key: &str) -> Self {
        let (routes, methods) = services.into_routes();
        let id = crate::paths::random_id(13);
        let info = SessionInfo {
            id: id.clone(),
            name: String::new(),
            shared_key: shared_key.to_owned(),
            methods,
            health_timeout: None,
        };
        let mut control = daemon.control();
        let (stop, stopped) = oneshot::channel();
        let (opened, _) = oneshot::channel();
        let serving = AbortOnDropHandle::new(tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            session::serve(&mut control, &info, routes, opened, stopped).await
        }));
        Self { id, serving: Some(serving), _stop: stop }
    }

    /// Waits until the session has ended by itself, and says why if that is an error.
    async fn ended(&mut self) -> Option<session::ServeError> {
        let Some(serving) = &mut self.serving else { return std::future::pending().await };
        let ended = serving.await;
        self.serving = None;
        ended.ok().and_then(Result::err)
    }
}

async fn follow(
    answer: impl Future<Output = Result<Response, Status>> + 'static,
    status: impl futures::Stream<Item = Result<StatusResponse, Status>>,
    mut noticed: mpsc::Receiver<StatusResponse>,
    mut session: Session,
    progress: &mut Progress,
    interrupts: &mut Interrupts,
) -> Result<Response, NotBuilt> {
    // Boxed, so that it can be dropped: that is how the daemon is told to stop.
    let mut answer = Some(Box::pin(answer));
    let mut status = pin!(status.fuse());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut result: Option<Result<Response, Status>> = None;
    let mut session_error = None;
    let mut is_interrupted = false;
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            answered = async {
                match &mut answer {
                    Some(answer) => answer.await,
                    None => std::future::pending().await,
                }
            } => {
                answer = None;
                heard = Instant::now();
                result = Some(answered);
            }
            message = status.next() => match message {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    progress.update(&message);
                }
                // The build's answer says why, if there is something to say.
                Some(Err(_)) => {}
                None if result.is_some() => break,
                // Nothing more to show: only the answer is left, and the ends of waiting for it.
                None => {
                    result = Some(wait(&mut answer, interrupts, &mut is_interrupted).await);
                    break;
                }
            },
            Some(notice) = noticed.recv() => progress.update(&notice),
            error = session.ended() => session_error = error,
            () = interrupts.next() => {
                if is_interrupted {
                    std::process::exit(failure::INTERRUPTED.into());
                }
                is_interrupted = true;
                heard = Instant::now();
                if answer.take().is_some() {
                    result = Some(Err(canceled()));
                }
            }
            _ = ticks.tick() => progress.refresh(),
            () = tokio::time::sleep_until(heard + SILENCE), if result.is_some() => break,
        }
    }
    match result.unwrap_or_else(|| Err(canceled())) {
        Ok(response) => Ok(response),
        Err(status) => {
            let error = match session_error {
                // A build fails when its session does, and says less about it.
                Some(error) if !is_interrupted => anyhow::Error::new(error),
                _ => anyhow::Error::new(Refused::from(status)),
            };
            let error = error.context("failed to solve").context("failed to build");
            Err(if is_interrupted { NotBuilt::Interrupted(error) } else { NotBuilt::Failed(error) })
        }
    }
}

/// Waits for the answer of a build whose progress has ended.
async fn wait<F>(
    answer: &mut Option<std::pin::Pin<Box<F>>>,
    interrupts: &mut Interrupts,
    is_interrupted: &mut bool,
) -> Result<Response, Status>
where
    F: Future<Output = Result<Response, Status>>,
{
    let Some(waiting) = answer else { return Err(canceled()) };
    tokio::select! {
        answered = waiting => {
            *answer = None;
            answered
        }
        () = interrupts.next() => {
            *answer = None;
            *is_interrupted = true;
            Err(canceled())
        }
    }
}

fn canceled() -> Status {
    Status::new(Code::Cancelled, "context canceled")
}
