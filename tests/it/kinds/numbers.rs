//! Histograms, PR curves, bodies and hyperparameters.

use serde_json::{Value, json};

use super::{column, imported, paths, read_by_tensorboard, tags, text};
use crate::support::server::RunSnapshot;

/// The most bins that W&B takes.
const MOST_BINS: usize = 512;

fn floats(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn close(a: f64, b: f64) -> bool {
    // TensorBoard's edges of a HistogramProto are floats.
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1e-9)
}

/// Without the empty bins at both ends: edges and weights.
fn trimmed(edges: &[f64], weights: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let Some(first) = weights.iter().position(|weight| *weight > 0.0) else { return (Vec::new(), Vec::new()) };
    let last = weights.iter().rposition(|weight| *weight > 0.0).unwrap();
    (edges[first..=last + 1].to_vec(), weights[first..=last].to_vec())
}

#[test]
fn histograms_have_the_edges_and_weights_that_tensorboard_shows() {
    let (mut same, mut put_together) = (0, 0);
    for tag in tags("histograms", 24) {
        let some = |point: &Value| point["bins"].as_array().unwrap().iter().any(|bin| bin[2] != 0.0);
        for (point, cell) in tag.cells(|point| some(point) || !column(tag.run, tag.name).is_empty()) {
            assert_eq!(cell["_type"], "histogram", "{}", tag.what);
            let (edges, weights) = (floats(&cell["bins"]), floats(&cell["values"]));
            assert!(edges.len() == weights.len() + 1 && weights.len() <= MOST_BINS, "{}: {cell}", tag.what);
            assert!(edges.is_sorted() && edges.iter().all(|edge| edge.is_finite()), "{}: {edges:?}", tag.what);

            let bins: Vec<Vec<f64>> = point["bins"].as_array().unwrap().iter().map(floats).collect();
            let shown: Vec<f64> = bins.iter().map(|bin| bin[2]).collect();
            let (total, wanted): (f64, f64) = (weights.iter().sum(), shown.iter().sum());
            assert!((total - wanted).abs() <= 1e-9 * wanted, "{}: {total} of {wanted}", tag.what);
            if wanted == 0.0 {
                continue;
            }
            let shown_edges: Vec<f64> = bins.iter().map(|bin| bin[0]).chain(bins.last().map(|bin| bin[1])).collect();
            let (edges, weights) = trimmed(&edges, &weights);
            let (shown_edges, shown) = trimmed(&shown_edges, &shown);
            if shown.len() > MOST_BINS {
                assert_eq!(weights.len(), MOST_BINS, "{}", tag.what);
                put_together += 1;
            } else {
                assert_eq!(weights, shown, "{}", tag.what);
                // The outermost edges of a HistogramProto are limits of buckets; TensorBoard shows the smallest and
                // largest value instead, which lie in these buckets.
                let inner = 1..edges.len() - 1;
                let same_inner = edges[inner.clone()].iter().zip(&shown_edges[inner]).all(|(a, b)| close(*a, *b));
                assert!(same_inner, "{}: {edges:?}, TensorBoard {shown_edges:?}", tag.what);
                same += 1;
            }
            let (first, last) = (edges[0], edges[edges.len() - 1]);
            let (smallest, largest) = (shown_edges[0], shown_edges[shown_edges.len() - 1]);
            let around = (first <= smallest || close(first, smallest)) && (last >= largest || close(last, largest));
            assert!(around, "{}: {first} to {last}, TensorBoard {smallest} to {largest}", tag.what);
        }
    }
    assert_eq!(put_together, 10, "as many as TensorBoard shows with more bins");
    assert!(same >= 17, "{same}");
}

#[test]
fn pr_curves_are_tables_and_have_a_chart() {
    for tag in tags("pr_curves", 12) {
        for (point, cell) in tag.cells(|_| true) {
            let (precision, recall) = (floats(&point["rows"][4]), floats(&point["rows"][5]));
            assert_eq!(cell["_type"], "table-file", "{}", tag.what);
            assert_eq!((cell["ncols"].as_u64(), cell["nrows"].as_u64()), (Some(2), Some(recall.len() as u64)));
            let digest = cell["sha256"].as_str().unwrap();
            assert_eq!(digest, tag.run.files[&paths(&cell)[0]].sha256, "{}", tag.what);
            assert!(digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
            assert!(paths(&cell)[0].starts_with("media/table/") && paths(&cell)[0].ends_with(".table.json"));

            let table: Value = serde_json::from_str(&text(tag.run, &cell)).unwrap();
            assert_eq!(table["columns"], json!(["recall", "precision"]), "{}", tag.what);
            let data: Vec<Vec<f64>> = table["data"].as_array().unwrap().iter().map(floats).collect();
            // They are floats in the file.
            let single = |numbers: &[f64]| numbers.iter().map(|number| *number as f32).collect::<Vec<_>>();
            let arrived: Vec<Vec<f32>> = data.iter().map(|row| single(row)).collect();
            let wanted: Vec<Vec<f32>> = recall.iter().zip(&precision).map(|(r, p)| single(&[*r, *p])).collect();
            assert_eq!(arrived, wanted, "{}", tag.what);
        }
        let chart = config(tag.run)["_wandb"]["visualize"][tag.name].clone();
        assert_eq!(chart["panel_type"], "Vega2", "{}: {chart}", tag.what);
        assert_eq!(chart["panel_config"]["fieldSettings"], json!({"x": "recall", "y": "precision"}), "{}", tag.what);
        let fields = &chart["panel_config"]["userQuery"]["queryFields"][0]["fields"];
        let table = fields.as_array().unwrap().iter().find(|field| field["name"] == "summaryTable").unwrap();
        assert_eq!(table["args"], json!([{"name": "tableKey", "value": tag.name}]), "{}", tag.what);
    }
}

/// The config without its shells.
fn config(run: &RunSnapshot) -> Value {
    serde_json::from_str(&run.config_value().to_string()).unwrap()
}

#[test]
fn hyperparameters_become_typed_config() {
    let mut sessions = 0;
    for (tb_run, read) in read_by_tensorboard() {
        let Some(start) = read["tags"].get("_hparams_/session_start_info") else { continue };
        sessions += 1;
        // The session is its own run, or it is that of the directory above.
        let above = tb_run.split('/').next().unwrap();
        let run = imported().runs.get(tb_run).unwrap_or_else(|| &imported().runs[above]);
        let config = config(run);
        for (name, value) in start[0]["start"]["hparams"].as_object().unwrap() {
            let there = &config[name];
            let same = there == value || (value.is_f64() && there.as_f64() == value.as_f64());
            assert!(same, "{tb_run}: `{name}` is {there}, not {value}");
        }
        assert_eq!(config["optimizer"], "sgd", "{tb_run}");
        // Whole numbers have no fraction; torch makes a number of a bool.
        assert_eq!(config["layers"].to_string(), "3", "{tb_run}");
        let bool_or_number = if above == "torch" { json!(1) } else { json!(true) };
        assert_eq!(config["nesterov"], bool_or_number, "{tb_run}");
        assert_eq!(run.exit_code, Some(0), "{tb_run}");
    }
    assert_eq!(sessions, 3);
}
