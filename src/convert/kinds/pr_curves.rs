//! PR curves: precision by recall becomes a table, and a chart in the run's config that draws it.
//!
//! As the official client has them, but that the digest in history is the hex that W&B's other clients write. The counts
//! of true and false positives and negatives in the tensor's first rows are not in W&B's chart and are not carried.

use crate::convert::kinds::{BadValue, Carried, CarriedFile, Cell, Subject, media_value};
use crate::model::Json;
use crate::tfevents::event::{Data, Value};
use crate::tfevents::tensor::{in_width, numbers};

pub(super) fn carry(subject: &Subject<'_>, value: &Value) -> Result<Carried, BadValue> {
    let Data::Tensor(tensor) = &value.data else { return Err(BadValue::new("a PR curve that is not a tensor")) };
    let (shape, numbers) = numbers(tensor).map_err(|why| BadValue::new(why.to_string()))?;
    let points = match shape.as_slice() {
        // The last two rows are precision and recall.
        &[rows, points] if rows >= 2 => points,
        shape => return Err(BadValue::new(format!("a PR curve of shape {shape:?}, which is not 6 rows of points"))),
    };
    if numbers.is_empty() {
        return Ok(Carried::default());
    }
    let row = |from_end: usize| {
        let from = numbers.len().saturating_sub(from_end * points);
        numbers.get(from..from + points).unwrap_or_default().iter()
    };
    let number = |number: &f64| Json::from(in_width(tensor.dtype, *number));
    let data = row(1).zip(row(2)).map(|(recall, precision)| vec![number(recall), number(precision)]);
    let table = Json::from([("columns", columns()), ("data", data.collect::<Vec<_>>().into())]);
    let mut content = Vec::new();
    table.write(&mut content);

    let (file, digested) = CarriedFile::media("table", "table.json", content.into(), subject.names);
    let mut cell = media_value("table-file", &file, &digested);
    cell.insert("ncols".to_owned(), Json::from(2));
    cell.insert("nrows".to_owned(), Json::from(i64::try_from(points).unwrap_or(i64::MAX)));
    let path = ["_wandb", "visualize", subject.key].map(str::to_owned).to_vec();
    Ok(Carried {
        cell: Some(Cell::Json(Json::Object(cell))),
        files: vec![file],
        config: vec![(path, chart(subject.key))],
        ..Carried::default()
    })
}

fn columns() -> Json {
    Json::from(vec!["recall", "precision"])
}

/// A line chart over the table that stands under `key`.
fn chart(key: &str) -> Json {
    let named = |name: &str| Json::from([("name", Json::from(name))]);
    let with = |name: &str, argument: &str, value: &str| {
        let argument = Json::from([("name", Json::from(argument)), ("value", Json::from(value))]);
        [("name", Json::from(name)), ("args", Json::Array(vec![argument]))]
    };
    let table = Json::from(with("summaryTable", "tableKey", key));
    let fields = vec![named("id"), named("name"), named("_defaultColorIndex"), table];
    let [name, arguments] = with("runSets", "runSets", "${runSets}");
    let query = Json::from([name, arguments, ("fields", Json::Array(fields))]);
    Json::from([
        ("panel_type", Json::from("Vega2")),
        (
            "panel_config",
            Json::from([
                ("panelDefId", Json::from("wandb/line/v0")),
                ("fieldSettings", Json::from([("x", Json::from("recall")), ("y", Json::from("precision"))])),
                ("stringSettings", Json::from([("title", Json::from(format!("{key} Precision v. Recall")))])),
                ("transform", named("tableWithLeafColNames")),
                ("userQuery", Json::from([("queryFields", Json::Array(vec![query]))])),
            ]),
        ),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::convert::kinds::Names;
    use crate::convert::kinds::fixture;
    use crate::proto::tensorboard::tensor_shape_proto::Dim;
    use crate::proto::tensorboard::{TensorProto, TensorShapeProto};

    fn subject() -> Subject<'static> {
        Subject { tag: "pr", key: "train/pr", step: 0, names: Names::Sha256 }
    }

    fn of_shape(sizes: &[i64], float_val: Vec<f32>) -> Value {
        let dim = sizes.iter().map(|&size| Dim { size, ..Default::default() }).collect();
        let tensor_shape = Some(TensorShapeProto { dim, unknown_rank: false });
        let tensor = TensorProto { dtype: 1, tensor_shape, float_val, ..Default::default() };
        Value { tag: "pr".into(), metadata: None, data: Data::Tensor(Box::new(tensor)) }
    }

    #[test]
    fn a_curve_is_the_table_of_the_official_client() {
        for file in fixture::MIXED {
            let values = fixture::values(file, "pr");
            let [(0, value)] = values.as_slice() else { panic!("{values:?}") };
            let carried = carry(&subject(), value).unwrap();
            let [file] = carried.files.as_slice() else { panic!("{:?}", carried.files) };
            // The official client 0.31.0 writes the same points, each f32 with the digits of a double.
            let expected = concat!(
                r#"{"columns":["recall","precision"],"data":[[1,0.6],[1,0.6],[1,0.75],[1,0.75],[0.6666667,0.6666667],"#,
                r#"[0.6666667,1],[0.6666667,1],[0.33333334,1],[0.33333334,1],[0,0],[0,0]]}"#
            );
            assert_eq!(file.content, expected);
            let Some(Cell::Json(cell)) = carried.cell else { panic!("no cell") };
            let digest = "51f0adfdb8e776265f2d0da8f16d7fb464c629e4185ba211b8392437e40b5497";
            assert_eq!(
                cell.to_string(),
                format!(
                    r#"{{"_type":"table-file","ncols":2,"nrows":11,"path":"{}","sha256":"{digest}","size":{}}}"#,
                    file.path,
                    expected.len()
                )
            );
            assert_eq!(file.path, format!("media/table/{}.table.json", digest.get(..20).unwrap()));
        }
    }

    #[test]
    fn the_chart_draws_the_table_of_its_key() {
        let mut numbers = vec![0.0; 8];
        numbers.extend([0.5, 0.25, 1.0, f32::NAN]);
        let carried = carry(&subject(), &of_shape(&[6, 2], numbers)).unwrap();
        let content = carried.files.first().unwrap().content.clone();
        assert!(content.ends_with(br#""data":[[1,0.5],[NaN,0.25]]}"#), "{content:?}");
        let [(path, chart)] = carried.config.as_slice() else { panic!("{:?}", carried.config) };
        assert_eq!(path, &["_wandb", "visualize", "train/pr"]);
        let expected = concat!(
            r#"{"panel_config":{"fieldSettings":{"x":"recall","y":"precision"},"panelDefId":"wandb/line/v0","#,
            r#""stringSettings":{"title":"train/pr Precision v. Recall"},"transform":{"name":"tableWithLeafColNames"},"#,
            r#""userQuery":{"queryFields":[{"args":[{"name":"runSets","value":"${runSets}"}],"fields":[{"name":"id"},"#,
            r#"{"name":"name"},{"name":"_defaultColorIndex"},{"args":[{"name":"tableKey","value":"train/pr"}],"#,
            r#""name":"summaryTable"}],"name":"runSets"}]}},"panel_type":"Vega2"}"#
        );
        assert_eq!(chart.to_string(), expected);
    }

    #[test]
    fn what_is_no_curve() {
        let refused = |value: &Value| carry(&subject(), value).unwrap_err().to_string();
        assert_eq!(refused(&of_shape(&[6], vec![0.0; 6])), "a PR curve of shape [6], which is not 6 rows of points");
        assert_eq!(
            refused(&of_shape(&[1, 2], vec![0.0; 2])),
            "a PR curve of shape [1, 2], which is not 6 rows of points"
        );
        assert_eq!(refused(&of_shape(&[6, 2], vec![])), "tensor whose shape does not fit its values");
        let nothing = Value { data: Data::None, ..of_shape(&[], vec![]) };
        assert_eq!(refused(&nothing), "a PR curve that is not a tensor");
        assert_eq!(carry(&subject(), &of_shape(&[6, 0], vec![])), Ok(Carried::default()));
        // No size overflows.
        assert_eq!(carry(&subject(), &of_shape(&[i64::MAX, 0], vec![])), Ok(Carried::default()));
    }
}
