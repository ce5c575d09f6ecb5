//! Writes event files of any size for benchmarks: the same options give the same bytes.
//!
//! The files are what TensorFlow's writers would have made (one value an event, in the TF1 or in the TF2 form), but the
//! bytes are put together here, so that a million scalars take a second. Nothing but the format is shared with the
//! program that is measured.

#![allow(missing_docs, clippy::print_stdout, reason = "an example has no API")]

use std::fs::{File, create_dir_all};
use std::io::{BufWriter, Result, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::{Parser, ValueEnum};

/// Write generated event files below DIR, one TB run a directory
#[derive(Parser)]
struct Options {
    dir: PathBuf,
    #[arg(long, default_value_t = 1)]
    runs: usize,
    #[arg(long, default_value_t = 250_000)]
    steps: i64,
    /// Tags at every step
    #[arg(long, default_value_t = 4)]
    tags: usize,
    #[arg(long, value_enum, default_value_t = Form::Simple)]
    form: Form,
    /// Write as training does, with so many milliseconds between the steps of a run: each step in one write, with the time
    /// of day. Says on stdout which run had which step when, in seconds since the Unix epoch
    #[arg(long)]
    live: Option<u64>,
}

/// What a value is, and how it is written.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Form {
    /// As TF1, torch and tensorboardX do: `simple_value`
    Simple,
    /// As TF2 does: a tensor, with its metadata every time
    Tensor,
    /// A histogram of 30 buckets as TF2 writes it
    Histogram,
    /// A PNG of noise, 128 by 128, as TF2 writes it
    Image,
}

/// 2026-07-14 08:00 UTC.
const START: f64 = 1_784_016_000.0;
const SECONDS_A_STEP: f64 = 0.25;

fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(pause) = options.live {
        return write_live(&options, Duration::from_millis(pause));
    }
    for number in 0..options.runs {
        let mut run = Run::create(number, START, &options)?;
        for step in 0..options.steps {
            run.write(step, START + step as f64 * SECONDS_A_STEP)?;
        }
        run.file.flush()?;
    }
    Ok(())
}

/// The runs take turns, so that not all of them write at the same moment.
fn write_live(options: &Options, pause: Duration) -> Result<()> {
    let begin = Instant::now();
    let mut runs = (0..options.runs).map(|number| Run::create(number, now(), options)).collect::<Result<Vec<_>>>()?;
    let turn = pause / runs.len().max(1) as u32;
    for step in 0..options.steps {
        for (number, run) in (0..).zip(&mut runs) {
            std::thread::sleep((pause * step as u32 + turn * number).saturating_sub(begin.elapsed()));
            run.write(step, now())?;
            run.file.flush()?;
            println!("{} {step} {:.6}", run.name, now());
        }
    }
    Ok(())
}

/// Seconds since the Unix epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// A run and its one file.
struct Run {
    name: String,
    number: usize,
    tags: Vec<String>,
    form: Form,
    file: BufWriter<File>,
    event: Vec<u8>,
}

impl Run {
    fn create(number: usize, start: f64, options: &Options) -> Result<Self> {
        let name = format!("run-{number:04}");
        let directory = options.dir.join(&name);
        create_dir_all(&directory)?;
        let file = directory.join(format!("events.out.tfevents.{start}.trainer-0.4242.{number}"));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(file)?);
        let mut event = Vec::new();
        double(1, start, &mut event);
        field(3, b"brain.Event:2", &mut event);
        write_record(&event, &mut file)?;
        let tags = (0..options.tags).map(|tag| format!("train/metric_{tag}")).collect();
        Ok(Self { name, number, tags, form: options.form, file, event })
    }

    fn write(&mut self, step: i64, wall_time: f64) -> Result<()> {
        let Self { number: run, tags, form, file, event, .. } = self;
        for (number, tag) in tags.iter().enumerate() {
            event.clear();
            double(1, wall_time + number as f64 * 1e-4, event);
            varint(2 << 3, event);
            varint(step as u64, event);
            let value = value(tag, curve(*run, number, step), *form);
            // Event.summary holding one Summary.value
            let mut summary = Vec::with_capacity(value.len() + 4);
            field(1, &value, &mut summary);
            field(5, &summary, event);
            write_record(event, file)?;
        }
        Ok(())
    }
}

/// A curve with as many digits as a real loss has.
fn curve(run: usize, tag: usize, step: i64) -> f32 {
    let time = step as f64;
    let scale = 2_000.0 * (1 + tag) as f64;
    (2.0 * (-time / scale).exp() + 0.1 * (1.7 * time + run as f64).sin() + 0.5) as f32
}

/// `Summary.Value`: tag = 1, simple_value = 2, tensor = 8, metadata = 9.
fn value(tag: &str, value: f32, form: Form) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    field(1, tag.as_bytes(), &mut bytes);
    match form {
        Form::Simple => {
            varint(2 << 3 | 5, &mut bytes);
            bytes.extend(value.to_le_bytes());
        }
        // DT_FLOAT of rank 0, DT_DOUBLE of 30 rows of three, DT_STRING of width, height and one picture.
        Form::Tensor => tensor(1, &[], 4, &[&value.to_le_bytes()], (b"scalars", 1), &mut bytes),
        Form::Histogram => tensor(2, &[30, 3], 4, &[&buckets(value)], (b"histograms", 2), &mut bytes),
        Form::Image => tensor(7, &[3], 8, &[b"128", b"128", &noise(value)], (b"images", 3), &mut bytes),
    }
    bytes
}

/// A tensor (dtype = 1, shape = 2, tensor_content = 4, string_val = 8), and the metadata that says whose it is.
fn tensor(
    dtype: u64,
    shape: &[u64],
    content_field: u64,
    content: &[&[u8]],
    (plugin, class): (&[u8], u8),
    into: &mut Vec<u8>,
) {
    let mut tensor = Vec::with_capacity(64);
    varint(1 << 3, &mut tensor);
    varint(dtype, &mut tensor);
    let mut dims = Vec::new();
    for size in shape {
        let mut dim = vec![1 << 3];
        varint(*size, &mut dim);
        field(2, &dim, &mut dims);
    }
    field(2, &dims, &mut tensor);
    for part in content {
        field(content_field, part, &mut tensor);
    }
    field(8, &tensor, into);
    // plugin_data = 1 with plugin_name = 1, data_class = 4.
    let (mut name, mut metadata) = (Vec::new(), Vec::new());
    field(1, plugin, &mut name);
    field(1, &name, &mut metadata);
    metadata.extend([4 << 3, class]);
    field(9, &metadata, into);
}

/// Left edge, right edge and count of each bucket.
fn buckets(center: f32) -> Vec<u8> {
    let edge = |bucket: i32| f64::from(center) + f64::from(bucket - 15) * 0.037;
    let count = |bucket: i32| (4096.0 * (-f64::from((bucket - 15).pow(2)) / 40.0).exp()).round();
    (0..30).flat_map(|bucket| [edge(bucket), edge(bucket + 1), count(bucket)]).flat_map(f64::to_le_bytes).collect()
}

/// A picture that does not get smaller by compression.
fn noise(seed: f32) -> Vec<u8> {
    const SIDE: u32 = 128;
    let mut state = u64::from(seed.to_bits()) | 1 << 40;
    // Each row begins with a 0: not filtered.
    let row = 1 + 3 * SIDE as usize;
    let mut pixels = vec![0; row * SIDE as usize];
    for color in pixels.chunks_mut(row).flat_map(|row| &mut row[1..]) {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *color = state as u8;
    }
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::none());
    packed.write_all(&pixels).expect("memory takes all");
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    // Eight bits of each of three colors.
    let header = [&SIDE.to_be_bytes()[..], &SIDE.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in
        [(b"IHDR", header), (b"IDAT", packed.finish().expect("memory takes all")), (b"IEND", Vec::new())]
    {
        png.extend((data.len() as u32).to_be_bytes());
        let named = [kind, &data[..]].concat();
        png.extend(&named);
        png.extend(crc32fast::hash(&named).to_be_bytes());
    }
    png
}

/// u64 length, masked crc of the length, payload, masked crc of the payload.
fn write_record(payload: &[u8], file: &mut impl Write) -> Result<()> {
    let length = (payload.len() as u64).to_le_bytes();
    file.write_all(&length)?;
    file.write_all(&masked_crc(&length))?;
    file.write_all(payload)?;
    file.write_all(&masked_crc(payload))
}

fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// A length-delimited protobuf field.
fn field(number: u64, content: &[u8], into: &mut Vec<u8>) {
    varint(number << 3 | 2, into);
    varint(content.len() as u64, into);
    into.extend_from_slice(content);
}

fn double(number: u64, value: f64, into: &mut Vec<u8>) {
    varint(number << 3 | 1, into);
    into.extend(value.to_le_bytes());
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}
