//! `demo`: a relay, an agent and a server in one process, walked through as a client would.

mod http;
mod pages;
mod recipes;
pub(crate) mod server;
mod stage;
mod walk;

use std::future::Future;

use crate::cli::{DemoArgs, Global};
use crate::failure::Failure;
use crate::{host, output, signals};
use stage::Stage;
use walk::Itinerary;

/// Sets everything up, walks, and stays until a signal unless it is only a check.
pub(crate) fn run(args: &DemoArgs, global: &Global) -> Result<(), Failure> {
    host::run(async {
        let stop = signals::stop()?;
        let stage = Stage::set(args).await?;
        let outcome = perform(&stage, args, global, stop).await;
        stage.clear().await;
        outcome
    })
}

async fn perform(
    stage: &Stage,
    args: &DemoArgs,
    global: &Global,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let itinerary = Itinerary {
        endpoint: stage.endpoint(),
        user: stage::USER.into(),
        password: stage.password().clone(),
        own_server: args.server.is_empty(),
        json: global.json,
    };
    if !global.json {
        output::line(format!(
            "A relay, an agent and a server run on this machine; a client walks through them at {}:\n",
            itinerary.endpoint
        ))?;
    }
    let begun = std::time::Instant::now();
    let mut stop = std::pin::pin!(stop);
    tokio::select! {
        walked = walk::walk(&itinerary) => walked?,
        () = &mut stop => return Ok(()),
    }
    if global.json {
        output::compact(&serde_json::json!({ "ok": true, "ms": begun.elapsed().as_millis() }))?;
    } else {
        output::line(format!("\n  all of it in {:.1} s", begun.elapsed().as_secs_f64()))?;
    }
    if args.check {
        return Ok(());
    }
    output::line(recipes::recipes(&itinerary.endpoint, stage::USER, itinerary.password.expose()))?;
    output::line("\nCtrl-C ends it; nothing of it stays.")?;
    stop.await;
    Ok(())
}
