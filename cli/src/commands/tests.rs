//! Every command against a fake daemon: what it asks, what it prints, how it exits.

use clap::CommandFactory;
use clap::error::ErrorKind;
use dunlin_api::fake::{Answer, FakeDaemon};
use dunlin_api::*;
use dunlin_state::model::{Availability, ExitReport, Phase, Slot, SlotId};

use crate::args::Cli;
use crate::testing::{NOW, Ran, dunlin, node, replica};

mod asking;
mod changing;
mod maintenance;
mod namespaces;
mod planning;
mod traffic;
mod words;

fn fake(script: impl Fn(&str) -> Answer + Send + Sync + 'static) -> FakeDaemon {
    FakeDaemon::start(move |asked| script(&asked.line)).unwrap()
}

async fn answered<T: serde::Serialize>(body: &T, words: &[&str]) -> Ran {
    let answer = Answer::json(body);
    dunlin(&fake(move |_| answer.clone()), words).await
}

fn missing() -> Answer {
    let body = ErrorBody::new(
        ErrorCode::NoSuchService,
        "no service is named 'default/wob'",
    )
    .with_hint("did you mean 'default/web'?");
    Answer::error(&body)
}
