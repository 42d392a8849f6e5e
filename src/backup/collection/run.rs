//! Backs up one collection. Each step is a function of what the earlier steps returned.

use super::assemble::{Assembled, Assembling, assemble};
use super::departures;
use super::listed::{Departed, Listed, Rounds};
use super::plan::{Plan, Standing};
use super::previous::Previous;
use super::rounds;
use super::store::{Stock, take_rows};
use super::{Collection, Report};
use crate::backup::context::{Context, Ended};
use crate::runtime::blocking;
use std::sync::Arc;

/// Backs up a collection: reads what changed, stores it, and makes its trees.
///
/// # Errors
/// Errors that end the work on the collection, or the run.
pub async fn back_up<C: Collection>(
    context: &Arc<Context>,
    collection: &Arc<C>,
    standing: Standing<'_>,
    report: &mut Report,
) -> Result<Assembled, Ended> {
    let planned = collection.plan(context, &standing).await?;
    let (plan, mut previous) = Plan::new(context, planned, standing)?;
    let mut rounds = rounds::go(context, &**collection, &plan).await?;
    if !is_quiet(&**collection, &plan, &rounds, &previous) {
        previous = load_items(context, previous).await?;
    }
    rounds::settle_conflicts(context, &**collection, &plan, &mut rounds).await?;
    let departed = departures::prove(context, &**collection, &plan, &previous, &mut rounds).await?;
    let amendments = collection.amend(context, &plan, &previous, &mut rounds, &departed).await?;
    let stock = Stock::new(context, collection, &plan, &rounds, previous, amendments);
    let stock = store(context, &plan, &mut rounds, &departed, stock).await?;
    assemble(Assembling::new(context, &**collection, plan, rounds, departed, report), stock).await
}

/// Returns true if no item has to be looked at: no round reported anything, and no earlier run left work over.
fn is_quiet<C: Collection>(collection: &C, plan: &Plan<'_>, rounds: &Rounds<C::Item>, previous: &Previous) -> bool {
    let is_quiet =
        |(index, listed): (&usize, &Listed<C::Item>)| listed.is_quiet() && !collection.owes(&plan.folders[*index]);
    rounds.complete.iter().all(is_quiet) && departures::folders_gone(plan, rounds, previous).next().is_none()
}

async fn load_items(context: &Arc<Context>, mut previous: Previous) -> Result<Previous, Ended> {
    let context = context.clone();
    let loading = move || previous.load_items(&context.reader).map(|()| previous);
    Ok(blocking(loading).await?)
}

/// Removes what left from the folders, and stores what the rounds reported.
async fn store<C: Collection>(
    context: &Arc<Context>,
    plan: &Plan<'_>,
    rounds: &mut Rounds<C::Item>,
    departed: &Departed,
    stock: Stock<C>,
) -> Result<Stock<C>, Ended> {
    for (index, listed) in &mut rounds.complete {
        stock.note_unreadable(&plan.folders[*index].id, listed);
    }
    for (index, names) in departed {
        let Some(work) = stock.works.get(&plan.folders[*index].id) else { continue };
        let mut done = work.done.lock();
        names.iter().try_for_each(|name| done.edits.remove(name, &context.store))?;
    }
    let stock = Arc::new(stock);
    take_rows(context, rounds, &stock).await?;
    for listed in rounds.complete.values() {
        listed.clear(context)?;
    }
    Ok(Arc::into_inner(stock).expect("all batches have ended"))
}
