//! One connection: its requests, one after the other, and how long each part of them may take.

use std::net::IpAddr;
use std::pin::pin;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::server::Limits;

/// Bytes of a request's header at most.
const HEADER: usize = 64 * 1024;

/// The address at which a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local(pub(super) IpAddr);

/// What a connection is at, since when, and until when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phase {
    is_answering: bool,
    since: Instant,
    until: Instant,
}

impl Phase {
    /// No request has come yet.
    pub(super) fn opening(limits: Limits) -> Self {
        let since = Instant::now();
        Self { is_answering: false, since, until: since + limits.opening }
    }

    /// A request's header is there. Reading its body and making the answer have limits of their own, with
    /// answers that say so.
    fn answering(limits: Limits) -> Self {
        let since = Instant::now();
        Self { is_answering: true, since, until: since + limits.body + limits.answer }
    }

    /// An answer is ready to be written.
    fn idle(limits: Limits) -> Self {
        let since = Instant::now();
        Self { is_answering: false, since, until: since + limits.idle }
    }

    /// Since when no request is being answered.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (!self.is_answering).then_some(self.since)
    }
}

/// Serves a connection until its client closes it, takes too long, or is told to go. Ended early, it takes the
/// request that is under way with it.
pub(super) async fn serve(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    phase: watch::Sender<Phase>,
    mut stopping: watch::Receiver<bool>,
) {
    let Ok(local) = stream.local_addr() else { return };
    let mut out_of_time = pin!(out_of_time(phase.subscribe()));
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        phase.send_replace(Phase::answering(limits));
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Local(local.ip().to_canonical()));
        let answering = router.call(request);
        async {
            let answer = answering.await;
            phase.send_replace(Phase::idle(limits));
            answer
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(HEADER)
        // The phases have the limits.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let stop = async {
        // The sender lives as long as the server.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = &mut out_of_time => return,
        () = stop => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = out_of_time => return,
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection to the API ended badly");
    }
}

/// Resolves once a phase has taken too long.
async fn out_of_time(mut phase: watch::Receiver<Phase>) {
    loop {
        let until = phase.borrow_and_update().until;
        tokio::select! {
            () = sleep_until(until) => return,
            // The sender lives as long as the connection.
            _ = phase.changed() => {}
        }
    }
}
