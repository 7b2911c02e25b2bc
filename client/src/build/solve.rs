//! One build: the session, the request and its progress, all at once.

use super::call;
use super::inspect::{self, Halt};
use super::interrupt::Interrupts;
use super::request::Plan;
use crate::args::on_error::OnError;
use crate::daemon::Daemon;
use crate::failure::{self, Refused};
use crate::progress::{Progress, TICK};
use crate::session::Services;
use futures::StreamExt;
use kiln_proto::control::{SolveRequest, StatusRequest, StatusResponse};
use kiln_proto::detail;
use kiln_proto::errdefs::Vertex;
use kiln_proto::session::{self, SessionInfo};
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

/// Progress that is silent for so long after the build's end is not waited for any more.
const SILENCE: Duration = Duration::from_secs(5);

/// Progress that is silent for so long after a step has failed will not say so any more.
const LULL: Duration = Duration::from_secs(1);

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
    /// It failed, and the user has read why.
    Told,
}

/// What the user sees of a build.
#[derive(Debug)]
pub(super) struct Display<'a> {
    pub(super) progress: &'a mut Progress,
    pub(super) is_verbose: bool,
}

impl Display<'_> {
    /// Shows that the build has failed, before its end.
    fn show(&mut self, status: Status) {
        self.progress.finish(self.is_verbose);
        failure::tell(&explain(Refused::from(status)));
    }
}

/// The error of a build.
fn explain(cause: impl std::error::Error + Send + Sync + 'static) -> anyhow::Error {
    anyhow::Error::new(cause).context("failed to solve").context("failed to build")
}

/// Runs a build to its end, and shows its progress.
pub(super) async fn solve(
    daemon: &Daemon,
    plan: &mut Plan,
    display: Display<'_>,
    interrupts: &mut Interrupts,
) -> Result<Response, NotBuilt> {
    let (notices, noticed) = mpsc::channel(NOTICES);
    plan.services.notices = Some(notices);
    let session = Session::open(daemon, std::mem::take(&mut plan.services), &plan.shared_key);
    plan.request.session.clone_from(&session.id);
    let (halt, halts) = mpsc::channel(1);
    let answer = answer(daemon, plan, halt);
    let status = status(daemon, &plan.request.r#ref);
    let heard = Heard { status, notices: noticed, halts };
    follow(answer, heard, session, display, interrupts).await
}

/// The daemon's answer to a build, or to a question.
fn answer(
    daemon: &Daemon,
    plan: &Plan,
    halts: mpsc::Sender<Halt>,
) -> impl Future<Output = Result<Response, Status>> + 'static + use<> {
    let daemon = daemon.clone();
    let request: SolveRequest = plan.request.clone();
    let (call, on_error) = (plan.call.clone(), plan.on_error.clone());
    async move {
        if let Some(call) = call {
            return call::ask(&daemon, request, &call).await;
        }
        if let OnError::Run(program) = on_error {
            let solving = inspect::solve(&daemon, request, program.as_deref(), halts);
            // It is large, and few builds have it.
            return Box::pin(solving).await;
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

/// What is heard of a build while it is under way.
struct Heard<S> {
    status: S,
    /// What the session does for it.
    notices: mpsc::Receiver<StatusResponse>,
    /// That a step has failed into which the user wants to look.
    halts: mpsc::Receiver<Halt>,
}

async fn follow(
    answer: impl Future<Output = Result<Response, Status>> + 'static,
    heard_of: Heard<impl futures::Stream<Item = Result<StatusResponse, Status>>>,
    mut session: Session,
    mut display: Display<'_>,
    interrupts: &mut Interrupts,
) -> Result<Response, NotBuilt> {
    let Heard { status, mut notices, mut halts } = heard_of;
    // Boxed, so that it can be dropped: that is how the daemon is told to stop.
    let mut answer = Some(Box::pin(answer));
    let mut status = pin!(status.fuse());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut result: Option<Result<Response, Status>> = None;
    let mut session_error = None;
    let mut is_interrupted = false;
    let mut heard = Instant::now();
    let mut failures = Failures::default();
    let mut halted: Option<Halt> = None;
    let mut is_told = false;
    let mut is_over = false;
    while !is_over || result.is_none() {
        // Only when all is shown that led to the failure, the failure is.
        let is_shown = |status: &Status| is_over || failures.has(status) || heard.elapsed() >= LULL;
        if let Some(halt) = halted.take_if(|halt| is_shown(&halt.status)) {
            display.show(halt.status);
            is_told = halt.proceed.send(()).is_ok();
        }
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
            message = status.next(), if !is_over => match message {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    failures.note(&message);
                    display.progress.update(&message);
                }
                // The build's answer says why, if there is something to say.
                Some(Err(_)) => {}
                // Nothing more to show: only the answer is left, and the ends of waiting for it.
                None => is_over = true,
            },
            Some(halt) = halts.recv() => {
                heard = Instant::now();
                halted = Some(halt);
            }
            Some(notice) = notices.recv() => display.progress.update(&notice),
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
            _ = ticks.tick() => display.progress.refresh(),
            () = tokio::time::sleep_until(heard + SILENCE), if result.is_some() => break,
        }
    }
    match result.unwrap_or_else(|| Err(canceled())) {
        Ok(response) => Ok(response),
        Err(_) if is_told && !is_interrupted => Err(NotBuilt::Told),
        Err(status) => {
            let error = match session_error {
                // A build fails when its session does, and says less about it.
                Some(error) if !is_interrupted => explain(error),
                _ => explain(Refused::from(status)),
            };
            Err(if is_interrupted { NotBuilt::Interrupted(error) } else { NotBuilt::Failed(error) })
        }
    }
}

/// The steps that are known to have failed.
#[derive(Debug, Default)]
struct Failures(HashSet<String>);

impl Failures {
    fn note(&mut self, message: &StatusResponse) {
        let failed = message.vertexes.iter().filter(|vertex| !vertex.error.is_empty());
        self.0.extend(failed.map(|vertex| vertex.digest.clone()));
    }

    /// Whether the step that an error is about is one of them.
    fn has(&self, status: &Status) -> bool {
        let step: Option<Vertex> = detail::find(status);
        step.is_some_and(|step| self.0.contains(&step.digest))
    }
}

fn canceled() -> Status {
    Status::new(Code::Cancelled, "context canceled")
}
