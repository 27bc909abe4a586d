//! Where this node's proxies and DNS lead now: what the route table says, what the proxies have
//! found out, and why a replica that exists is not used.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use dunlin_api::{
    PortRoute, Replica, ReplicaRoute, RouteEnd, RouteList, RouteListener, RouteQuery, RouteUsage,
    ServiceRoutes,
};
use dunlin_core::engine::Engine;
use dunlin_core::liveness::Standing;
use dunlin_dns::Counters;
use dunlin_lb::PortView;
use dunlin_lb::balance::{Health, TargetView};
use dunlin_lb::proxy::hop::Hop;
use dunlin_lb::publish::{Listeners, Views};
use dunlin_state::model::{NodeId, Phase, PortSpec, ServiceKey, Slot};
use dunlin_state::route::{Backend, RouteTable, ServiceRoute};
use tokio::sync::watch;

use super::failure::{Answer, Failure, Query};
use super::{Caller, Context, views};

/// The parts of the node that carry traffic, as far as they show something.
#[derive(Clone)]
pub(crate) struct Traffic {
    pub(crate) routes: watch::Receiver<Arc<RouteTable>>,
    pub(crate) proxies: Views,
    pub(crate) hop: Arc<Hop>,
    /// What the DNS server counts, if there is one.
    pub(crate) names: Option<Counters>,
}

/// What the engine knows of the services that are asked for.
struct Known {
    node: NodeId,
    node_name: String,
    replicas: Vec<Replica>,
    standings: BTreeMap<NodeId, Standing>,
    names: BTreeMap<NodeId, String>,
}

/// What all services are looked at with.
struct Scene<'a> {
    known: &'a Known,
    table: &'a RouteTable,
    ports: &'a [PortView],
    listeners: &'a Listeners,
    suffix: Option<&'a str>,
}

pub(super) async fn list(
    State(context): State<Context>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<RouteQuery>,
) -> Answer<RouteList> {
    let service = query.service.as_ref().map(ServiceKey::namespace);
    for namespace in query.namespace.as_deref().into_iter().chain(service) {
        caller.may_read(namespace)?;
    }
    let traffic = &context.traffic;
    let wanted = views::Wanted {
        namespace: query.namespace.clone(),
        service: query.service.clone(),
        node: None,
    };
    let known = context.engine.ask(move |e| known(e, &wanted)).await?;
    let table = traffic.routes.borrow().clone();
    if let Some(service) = &query.service
        && !table.services.contains_key(service)
    {
        return Err(Failure::no_such_service(service));
    }
    let suffix = context.info.dns.as_ref().map(|dns| dns.suffix.as_str());
    let scene = Scene {
        known: &known,
        table: &table,
        ports: &traffic.proxies.ports(query.service.as_ref()),
        listeners: &traffic.proxies.listeners(),
        suffix,
    };
    let wanted = |key: &ServiceKey| {
        let namespace = query.namespace.as_deref();
        caller.sees(key.namespace())
            && namespace.is_none_or(|n| n == key.namespace())
            && query.service.as_ref().is_none_or(|s| s == key)
    };
    let services = table.services.iter().filter(|(key, _)| wanted(key));
    Ok(Json(RouteList {
        node: known.node,
        node_name: known.node_name.clone(),
        services: services
            .map(|(key, route)| scene.service(key, route))
            .collect(),
    }))
}

fn known(engine: &Engine, wanted: &views::Wanted) -> Known {
    let replicas = views::replicas(engine, wanted).replicas;
    let me = engine.me().node;
    let mut standings: BTreeMap<NodeId, Standing> = engine
        .members()
        .iter()
        .map(|member| (member.id.node, member.standing))
        .collect();
    standings.insert(me, Standing::Alive);
    let names = engine.observed().map(|r| (r.node, r.report.name.clone()));
    Known {
        node: me,
        node_name: engine.config().name.clone(),
        replicas,
        standings,
        names: names.collect(),
    }
}

impl Scene<'_> {
    fn service(&self, key: &ServiceKey, route: &ServiceRoute) -> ServiceRoutes {
        let (name, namespace) = (key.name(), key.namespace());
        ServiceRoutes {
            service: key.clone(),
            name: self.suffix.map(|s| format!("{name}.{namespace}.{s}")),
            addresses: route.vip.addresses().collect(),
            networks: route.networks.clone(),
            policy: route.traffic.clone(),
            ports: route.ports.iter().map(|p| self.port(key, p)).collect(),
            replicas: self.replicas(key, route),
        }
    }

    fn port(&self, key: &ServiceKey, port: &PortSpec) -> PortRoute {
        let listeners = self.listeners.all.iter().filter(|listener| {
            let of = &listener.port;
            let is_it =
                of.service == *key && (of.target, of.protocol) == (port.target, port.protocol);
            // Those of single replicas are told with the replicas, unless something is wrong.
            is_it && (listener.only.is_none() || listener.failure.is_some())
        });
        let refused = self.listeners.refused.iter();
        let mut refused =
            refused.filter(|r| r.service == *key && Some(r.published) == port.published);
        let view = self.ports.iter().find(|view| {
            let of = &view.port;
            of.service == *key && (of.target, of.protocol) == (port.target, port.protocol)
        });
        PortRoute {
            port: port.clone(),
            listeners: listeners
                .map(|listener| RouteListener {
                    address: listener.place.address,
                    is_virtual: listener.virtual_address,
                    failure: listener.failure.clone(),
                })
                .collect(),
            refused: refused.next().map(|refusal| refusal.reason.to_string()),
            waiting: view.map_or(0, |view| view.pending),
        }
    }

    /// The replicas that nodes report, and those that only have connections left.
    fn replicas(&self, key: &ServiceKey, route: &ServiceRoute) -> Vec<ReplicaRoute> {
        let mut views: Vec<(&PortView, &TargetView)> = Vec::new();
        for view in self.ports.iter().filter(|view| view.port.service == *key) {
            views.extend(view.targets.iter().map(|target| (view, target)));
        }
        let mut all = Vec::new();
        let reported = self.known.replicas.iter().filter(|r| r.service == *key);
        for replica in reported {
            let id = (replica.slot, replica.node, replica.epoch);
            let of = |t: &TargetView| (t.target.slot, t.target.node, t.target.epoch) == id;
            let (own, others): (Vec<_>, Vec<_>) = views.into_iter().partition(|(_, t)| of(t));
            views = others;
            all.push(self.reported(replica, route, &own));
        }
        for (view, target) in views {
            // The proxies may be a moment behind the engine.
            if target.open > 0 {
                all.push(self.left(view, target));
            }
        }
        all.sort_by_key(|replica| (replica.slot, replica.node));
        all
    }

    fn reported(
        &self,
        replica: &Replica,
        route: &ServiceRoute,
        views: &[(&PortView, &TargetView)],
    ) -> ReplicaRoute {
        let is_it =
            |b: &&Backend| (b.slot, b.node, b.epoch) == (replica.slot, replica.node, replica.epoch);
        let backend = route.backends.iter().find(is_it);
        let usage = match backend {
            Some(_) => RouteUsage::Used,
            None => self.obstacle(replica),
        };
        let ends = replica.endpoints.iter().map(|end| {
            let view = views.iter().find(|(view, target)| {
                (view.port.target, view.port.protocol) == (end.target, end.protocol)
                    && target.target.address == end.address
            });
            let mut shown = RouteEnd {
                target: end.target,
                protocol: end.protocol,
                address: end.address,
                usage,
                open: 0,
                connect_us: None,
                ejected_for_ms: None,
            };
            if let Some((view, target)) = view {
                self.tell(&mut shown, view, target, route);
            }
            shown
        });
        ReplicaRoute {
            slot: replica.slot,
            node: replica.node,
            node_name: replica.node_name.clone(),
            addresses: of_slot(route, backend.map(|b| b.slot)),
            phase: Some(replica.phase),
            ready: replica.ready,
            usage,
            ends: ends.collect(),
        }
    }

    /// Adds what the proxies know.
    fn tell(&self, end: &mut RouteEnd, view: &PortView, target: &TargetView, route: &ServiceRoute) {
        end.open = target.open;
        end.connect_us = (target.latency > 0).then_some(target.latency);
        if end.usage != RouteUsage::Used {
            return;
        }
        let most = route.traffic.max_connections.unwrap_or(u32::MAX);
        end.usage = match target.health {
            Health::Ejected { until, .. } => {
                end.ejected_for_ms = Some(until.saturating_sub(view.now));
                RouteUsage::Ejected
            }
            Health::Probation { .. } => RouteUsage::Trial,
            Health::Good { .. } if target.open >= most => RouteUsage::Full,
            Health::Good { .. } => RouteUsage::Used,
        };
    }

    /// One that is gone, but for its connections.
    fn left(&self, view: &PortView, target: &TargetView) -> ReplicaRoute {
        let of = &target.target;
        let name = self.known.names.get(&of.node).cloned();
        ReplicaRoute {
            slot: of.slot,
            node: of.node,
            node_name: name.unwrap_or_else(|| of.node.short()),
            addresses: Vec::new(),
            phase: None,
            ready: false,
            usage: RouteUsage::Leaving,
            ends: vec![RouteEnd {
                target: view.port.target,
                protocol: view.port.protocol,
                address: of.address,
                usage: RouteUsage::Leaving,
                open: target.open,
                connect_us: (target.latency > 0).then_some(target.latency),
                ejected_for_ms: None,
            }],
        }
    }

    /// Why a replica is not in the table.
    fn obstacle(&self, replica: &Replica) -> RouteUsage {
        let standing = self.known.standings.get(&replica.node);
        match standing.copied().unwrap_or(Standing::Gone) {
            Standing::Gone | Standing::Left => return RouteUsage::NodeGone,
            Standing::Suspect => return RouteUsage::NodeSuspect,
            Standing::Alive => {}
        }
        let serving = self.table.nodes.get(&replica.node).map(|n| n.serving);
        match (replica.phase, replica.ready) {
            (Phase::Stopping, _) => RouteUsage::Leaving,
            _ if replica.leaving => RouteUsage::Leaving,
            (Phase::Running, true) if serving == Some(false) => RouteUsage::NodeUnconfirmed,
            (Phase::Running, true) => RouteUsage::NotWanted,
            (_, _) => RouteUsage::NotReady,
        }
    }
}

fn of_slot(route: &ServiceRoute, slot: Option<Slot>) -> Vec<IpAddr> {
    let vip = slot.and_then(|slot| route.replicas.get(&slot));
    vip.into_iter().flat_map(|vip| vip.addresses()).collect()
}

#[cfg(test)]
mod tests;
