//! Who the key belongs to, and what the server can do: what is asked before anything is sent.

use std::collections::BTreeMap;

use serde::Deserialize;
use tracing::debug;

use crate::api::client::ApiClient;
use crate::api::error::{ApiError, Class, shown};
use crate::api::graphql::{Named, Operation};
use crate::api::patience::Patience;

/// Who the key belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Viewer {
    /// The entity that is used when none is named.
    pub entity: String,
    /// The user's name.
    pub username: String,
    /// The teams that the user may write to.
    pub teams: Vec<String>,
}

/// What a server says it can do. Unknown is off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features(BTreeMap<String, bool>);

impl Features {
    /// Whether a feature is on.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).copied().unwrap_or_default()
    }
}

const VIEWER: Operation = Operation::new(
    "Viewer",
    "query Viewer { viewer { id entity username email flags teams { edges { node { name } } } } }",
);

const SERVER_FEATURES: Operation =
    Operation::new("ServerFeaturesQuery", "query ServerFeaturesQuery { serverInfo { features { name isEnabled } } }");

impl ApiClient {
    /// Asks who the key belongs to.
    pub async fn viewer(&self, patience: &impl Patience) -> Result<Viewer, ApiError> {
        let answer = self.graphql::<ViewerData>(&VIEWER, None, patience).await?;
        let Some(viewer) = answer.data.and_then(|data| data.viewer) else {
            return Err(ApiError::NoViewer { place: shown(&self.url(&["graphql"])?) });
        };
        let teams = viewer.teams.map(|teams| teams.edges).unwrap_or_default();
        Ok(Viewer {
            entity: viewer.entity.unwrap_or_default(),
            username: viewer.username.unwrap_or_default(),
            teams: teams.into_iter().map(|edge| edge.node.name).collect(),
        })
    }

    /// What the server can do; asked once. A server that cannot say so can do none of it.
    pub async fn features(&self, patience: &impl Patience) -> Result<&Features, ApiError> {
        let ask = || async {
            let asked = self.graphql::<FeaturesData>(&SERVER_FEATURES, None, patience).await;
            match asked {
                Err(error) if matches!(error.class(), Class::Cancelled | Class::Auth) => Err(error),
                Err(error) => {
                    debug!(%error, "the server does not say what it can do");
                    Ok(Features::default())
                }
                Ok(answer) => {
                    let features =
                        answer.data.and_then(|data| data.server_info).map(|info| info.features).unwrap_or_default();
                    Ok(Features(features.into_iter().map(|feature| (feature.name, feature.is_enabled)).collect()))
                }
            }
        };
        self.features.get_or_try_init(ask).await
    }
}

#[derive(Deserialize)]
struct ViewerData {
    viewer: Option<ViewerNode>,
}

#[derive(Deserialize)]
struct ViewerNode {
    entity: Option<String>,
    username: Option<String>,
    teams: Option<Teams>,
}

#[derive(Deserialize)]
struct Teams {
    edges: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    node: Named,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FeaturesData {
    server_info: Option<ServerInfo>,
}

#[derive(Deserialize)]
struct ServerInfo {
    #[serde(default)]
    features: Vec<Feature>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feature {
    name: String,
    is_enabled: bool,
}
