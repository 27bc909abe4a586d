//! `dunlin doctor`

use clap::Args;
use dunlin_api::client::ClientError;
use dunlin_api::{Check, CheckStatus, Exit};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {}

/// Checks the node; a daemon that cannot be reached is a finding too. Fails when a check fails.
pub async fn run(_args: &DoctorArgs, context: &mut Context) -> Result<Exit, Failure> {
    let host = context.client.host().to_string();
    let (checks, exit) = match context.client.doctor().await {
        Ok(report) => {
            let mut checks = vec![reached(host, &report.name)];
            checks.extend(report.checks);
            let failed = checks.iter().any(|c| c.status == CheckStatus::Fail);
            (checks, if failed { Exit::Failed } else { Exit::Ok })
        }
        Err(error) if error.exit() == Exit::Unreachable => {
            (vec![unreached(&error)], Exit::Unreachable)
        }
        Err(error) => return Err(error.into()),
    };
    if context.json {
        context.out.json(&checks)?;
    } else {
        context.out.table(&table(&checks))?;
    }
    Ok(exit)
}

fn reached(host: String, name: &str) -> Check {
    Check {
        name: "daemon".to_owned(),
        status: CheckStatus::Ok,
        detail: format!("{name} answers on {host}"),
        fix: None,
    }
}

fn unreached(error: &ClientError) -> Check {
    Check {
        name: "daemon".to_owned(),
        status: CheckStatus::Fail,
        detail: error.to_string(),
        fix: error.hint(),
    }
}

fn table(checks: &[Check]) -> Table {
    let mut table =
        Table::new(["CHECK", "STATUS", "FOUND", "WHAT TO DO"]).prose(&["FOUND", "WHAT TO DO"]);
    for check in checks {
        let (word, tone) = match check.status {
            CheckStatus::Ok => ("ok", Tone::Good),
            CheckStatus::Warn => ("warn", Tone::Warn),
            CheckStatus::Fail => ("FAIL", Tone::Bad),
        };
        table.row([
            Cell::from(&check.name),
            Cell::toned(word, tone),
            Cell::from(&check.detail),
            Cell::from(check.fix.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
