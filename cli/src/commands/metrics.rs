//! `dunlin metrics`

use clap::Args;
use dunlin_api::{Exit, parse_metrics};

use crate::context::Context;
use crate::failure::Failure;

/// Words of `dunlin metrics`.
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Only those whose names begin so, such as dunlin_proxy
    pub prefix: Option<String>,
}

/// Prints what the node counts, as Prometheus reads it.
pub async fn run(args: &MetricsArgs, context: &mut Context) -> Result<Exit, Failure> {
    let text = context.client.metrics().await?;
    let prefix = args.prefix.as_deref().unwrap_or_default();
    if context.json {
        let samples = parse_metrics(&text);
        let mut samples = samples.map_err(|error| Failure::Ended(error.to_string()))?;
        samples.retain(|sample| sample.name.starts_with(prefix));
        context.out.json(&samples)?;
        return Ok(Exit::Ok);
    }
    for line in text.lines() {
        let described = line
            .strip_prefix("# HELP ")
            .or(line.strip_prefix("# TYPE "));
        if described.unwrap_or(line).starts_with(prefix) {
            context.out.line(line)?;
        }
    }
    Ok(Exit::Ok)
}
