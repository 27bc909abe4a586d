//! `dunlin plan`

use clap::Args;
use dunlin_api::{DeployPlan, Exit, PlannedChange, PlannedService, PlannedSlot, PlannedStep};

use super::deploy::{FileArgs, request};
use super::{diff, show};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};

/// Words of `dunlin plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The file.
    #[command(flatten)]
    pub file: FileArgs,
}

/// Shows what a deploy of the file would change, and where replicas would go, without doing it.
pub async fn run(args: &PlanArgs, context: &mut Context) -> Result<Exit, Failure> {
    let (request, items) = request(&args.file, context)?;
    let plan = context.client.plan(&request).await?;
    if context.json {
        context.out.json(&plan)?;
        return Ok(Exit::Ok);
    }
    for item in &items {
        let what = format!(
            "{} {}: would be created or given its content",
            item.kind, item.key
        );
        context.out.line(what)?;
    }
    for (index, service) in plan.services.iter().enumerate() {
        if index > 0 {
            context.out.line("")?;
        }
        print(service, context)?;
    }
    context.out.line(summary(&plan))?;
    Ok(Exit::Ok)
}

fn print(plan: &PlannedService, context: &mut Context) -> Result<(), Failure> {
    let name = context.display(&plan.service);
    let change = match plan.change {
        PlannedChange::Create => "would be created",
        PlannedChange::Update => "would change",
        PlannedChange::Unchanged => "stays as it is",
    };
    context.out.line(format!("{name}: {change}"))?;
    if let Some(before) = &plan.before {
        diff::print(before, &plan.after, context)?;
    }
    if let Some(scale) = plan.scale_before.filter(|scale| *scale != plan.scale_after) {
        context.out.line(format!("- replicas: {scale}"))?;
        context
            .out
            .line(format!("+ replicas: {}", plan.scale_after))?;
    }
    let mut table = Table::new(["NAME", "STEP", "NODE", "FROM"]);
    for slot in plan.slots.iter().filter(|s| s.step != PlannedStep::Keep) {
        table.row([
            Cell::from(show::slot_name(&name, slot.slot)),
            step(slot),
            Cell::from(slot.node_name.as_deref().unwrap_or_default()),
            Cell::from(slot.from.as_deref().unwrap_or_default()),
        ]);
    }
    if plan.slots.iter().any(|s| s.step != PlannedStep::Keep) {
        context.out.table(&table)?;
    }
    print_data(plan, &name, context)?;
    print_ousted(plan, &name, context)?;
    if !plan.refusals.is_empty() && plan.slots.iter().any(|s| s.step == PlannedStep::Nowhere) {
        let mut table = Table::new(["NODE", "TAKES NO MORE BECAUSE IT", "WHAT WOULD HELP"])
            .prose(&["TAKES NO MORE BECAUSE IT", "WHAT WOULD HELP"]);
        for refusal in &plan.refusals {
            for reason in &refusal.reasons {
                table.row([
                    Cell::from(&refusal.name),
                    Cell::from(&reason.text),
                    Cell::from(reason.fix.as_deref().unwrap_or_default()),
                ]);
            }
        }
        context.out.table(&table)?;
    }
    Ok(())
}

/// Which copies of volumes decide where replicas go.
fn print_data(plan: &PlannedService, name: &str, context: &mut Context) -> Result<(), Failure> {
    let mut table = Table::new(["NAME", "GOES WHERE THE DATA IS OF", "NODE", "WHAT DECIDES"])
        .prose(&["WHAT DECIDES"]);
    let moving = |slot: &&PlannedSlot| match slot.step {
        PlannedStep::Start | PlannedStep::Update | PlannedStep::Move | PlannedStep::Nowhere => true,
        PlannedStep::Keep | PlannedStep::Stop => false,
    };
    let slots = plan.slots.iter().filter(moving);
    let bound: Vec<_> = slots
        .flat_map(|slot| slot.data.iter().map(|data| (slot.slot, data)))
        .collect();
    for (slot, data) in &bound {
        let why = match (data.begins, data.unused.is_empty()) {
            (true, _) => "nobody has it yet, and it would be begun there".to_owned(),
            (false, true) => "it has the only copy".to_owned(),
            (false, false) => {
                let others = data.unused.join(", ");
                format!("its copy counts, those on {others} do not")
            }
        };
        table.row([
            Cell::from(show::slot_name(name, *slot)),
            Cell::from(data.volume.to_string()),
            Cell::from(&data.node_name),
            Cell::from(why),
        ]);
    }
    if !bound.is_empty() {
        context.out.table(&table)?;
    }
    Ok(())
}

/// Who would have to go for what.
fn print_ousted(plan: &PlannedService, name: &str, context: &mut Context) -> Result<(), Failure> {
    let mut table = Table::new(["WOULD GIVE WAY", "TO", "ON"]);
    let slots = plan.slots.iter().filter(|s| !s.ousts.is_empty());
    for slot in slots.clone() {
        for ousted in &slot.ousts {
            let service = context.display(&ousted.service);
            table.row([
                Cell::toned(show::slot_name(&service, ousted.slot), Tone::Bad),
                Cell::from(show::slot_name(name, slot.slot)),
                Cell::from(slot.node_name.as_deref().unwrap_or_default()),
            ]);
        }
    }
    if slots.count() > 0 {
        context.out.table(&table)?;
    }
    Ok(())
}

fn step(slot: &PlannedSlot) -> Cell {
    match slot.step {
        PlannedStep::Keep => Cell::from("stays"),
        PlannedStep::Start => Cell::toned("start", Tone::Good),
        PlannedStep::Update => Cell::from("update"),
        PlannedStep::Move => Cell::from("move"),
        PlannedStep::Stop => Cell::from("stop"),
        PlannedStep::Nowhere => Cell::toned("no node", Tone::Bad),
    }
}

fn summary(plan: &DeployPlan) -> String {
    let services = |change| plan.services.iter().filter(|s| s.change == change).count();
    let slots = plan.services.iter().flat_map(|s| &s.slots);
    let steps = |step| slots.clone().filter(|s| s.step == step).count();
    let mut text = format!(
        "{} services to create, {} to change, {} unchanged; replicas: {} to start, {} to update, {} to \
         move, {} to stop",
        services(PlannedChange::Create),
        services(PlannedChange::Update),
        services(PlannedChange::Unchanged),
        steps(PlannedStep::Start),
        steps(PlannedStep::Update),
        steps(PlannedStep::Move),
        steps(PlannedStep::Stop),
    );
    let ousted: usize = slots.clone().map(|s| s.ousts.len()).sum();
    if ousted > 0 {
        text.push_str(&format!("; {ousted} of lower priorities would give way"));
    }
    let nowhere = steps(PlannedStep::Nowhere);
    if nowhere > 0 {
        text.push_str(&format!("; {nowhere} would find no node"));
    }
    text
}
