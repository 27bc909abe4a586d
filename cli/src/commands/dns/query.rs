//! `dunlin dns query`

use std::net::SocketAddr;

use clap::Args;
use dunlin_api::Exit;
use dunlin_state::model::ServiceKey;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde::Serialize;

use crate::context::Context;
use crate::demo::resolve::{ResolveError, ask};
use crate::failure::Failure;
use crate::output::{Cell, Table};

/// Words of `dunlin dns query`.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// A name, such as web, tasks.web, web.shop, example.com or web.default.dunlin.internal
    pub name: String,
    /// What is asked for: A, AAAA, SRV, PTR, ANY, …
    #[arg(default_value = "A", value_name = "TYPE")]
    pub kind: String,
}

/// A record as it is shown.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    ttl: u32,
    data: String,
}

/// Asks, trying the search domains of a replica in the namespace first where a replica would.
pub(super) async fn run(args: &QueryArgs, context: &mut Context) -> Result<Exit, Failure> {
    let kind: RecordType = args
        .kind
        .to_ascii_uppercase()
        .parse()
        .map_err(|_unknown| Failure::usage(format!("'{}' is no type of record", args.kind)))?;
    let server = super::server(context).await?;
    let address: SocketAddr = server
        .addresses
        .first()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Failure::usage("this node names no address of its DNS server"))?;
    let namespace = context.namespace.as_deref();
    let namespace = namespace.unwrap_or(ServiceKey::DEFAULT_NAMESPACE);
    for name in candidates(&args.name, namespace, &server.suffix) {
        let answer = match ask(address, &name, kind).await {
            Ok(answer) => answer,
            Err(ResolveError::Refused {
                code: ResponseCode::NXDomain,
                ..
            }) => continue,
            Err(error) => return Err(Failure::Ended(error.to_string())),
        };
        let rows: Vec<Row> = answer
            .answers
            .iter()
            .map(|record| Row {
                name: record.name.to_ascii(),
                kind: record.record_type().to_string(),
                ttl: record.ttl,
                data: record.data.to_string(),
            })
            .collect();
        return show(&rows, &name, kind, context);
    }
    if context.json {
        context.out.json(&Vec::<Row>::new())?;
    }
    context
        .out
        .note(format!("{address} knows no such name: {}", args.name))?;
    Ok(Exit::NotFound)
}

fn show(
    rows: &[Row],
    name: &str,
    kind: RecordType,
    context: &mut Context,
) -> Result<Exit, Failure> {
    if context.json {
        context.out.json(&rows)?;
        return Ok(Exit::Ok);
    }
    if rows.is_empty() {
        context
            .out
            .note(format!("{name} exists and has no {kind} records now"))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(["NAME", "TYPE", "TTL", "DATA"]);
    for row in rows {
        table.row([
            Cell::from(&row.name),
            Cell::from(&row.kind),
            Cell::from(row.ttl.to_string()),
            Cell::from(&row.data),
        ]);
    }
    context.out.table(&table)?;
    Ok(Exit::Ok)
}

/// What a resolver with these search domains and `ndots:2` asks for, in its order.
fn candidates(name: &str, namespace: &str, suffix: &str) -> Vec<String> {
    if let Some(whole) = name.strip_suffix('.') {
        return vec![whole.to_owned()];
    }
    let searched = [
        format!("{name}.{namespace}.{suffix}"),
        format!("{name}.{suffix}"),
    ];
    let whole = [name.to_owned()];
    match name.matches('.').count() {
        0 | 1 => searched.into_iter().chain(whole).collect(),
        _more => whole.into_iter().chain(searched).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_looked_for_in_the_cluster_first() {
        let of = |name| candidates(name, "shop", "d.internal");
        assert_eq!(of("web"), ["web.shop.d.internal", "web.d.internal", "web"]);
        assert_eq!(of("web.other")[1], "web.other.d.internal");
        assert_eq!(of("a.b.c")[0], "a.b.c");
        assert_eq!(of("web."), ["web"]);
    }
}
