// The page that draws the dashboard's panels with Grafana's own components.
import { createRoot } from 'react-dom/client';
import {
  createDataFrame, createTheme, dateTime, FieldType, getDisplayProcessor, ThemeContext, VizOrientation,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, PanelChrome, TimeSeries } from '@grafana/ui';

const { dashboard, mode, answers, from, to } = window.drawn;
const theme = createTheme({ colors: { mode } });
const cell = 38; // Grafana's 30 pixels and the 8 between two panels
const width = 1440;
const step = 500; // milliseconds between two values
const range = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };

// named fills in a legend's labels.
const named = (format, labels) => format.replace(/\{\{(\w+)\}\}/g, (_, label) => labels[label] ?? '').trim();

// configOf is the configuration of a series: the defaults of the panel, and the
// overrides of its name.
function configOf(panel, name) {
  const { defaults, overrides } = panel.fieldConfig;
  const config = { ...defaults, custom: { ...defaults.custom }, displayName: name };
  for (const o of overrides.filter((o) => o.matcher.options === name)) {
    for (const { id, value } of o.properties) {
      if (id.startsWith('custom.')) config.custom[id.slice('custom.'.length)] = value;
      else config[id] = value;
    }
  }
  if (config.thresholds) {
    config.thresholds = { ...config.thresholds, steps: config.thresholds.steps.map((s) => ({ ...s, value: s.value ?? -Infinity })) };
  }
  return config;
}

// seriesOf are the answers to a panel's queries, by name.
function seriesOf(panel) {
  return panel.targets.flatMap((target, i) => (answers[panel.title]?.[i] ?? []).map((series) => ({
    name: named(target.legendFormat, series.metric),
    values: series.values.map(([at, value]) => [Math.round(at * 1000), Number(value)]),
  })));
}

function framesOf(panel) {
  return seriesOf(panel).map(({ name, values }, i) => {
    const times = [];
    for (let at = from; at <= to; at += step) times.push(at);
    const shown = times.map(() => null);
    values.forEach(([at, value]) => { if (!Number.isNaN(value)) shown[Math.round((at - from) / step)] = value; });
    const frame = createDataFrame({
      refId: String(i),
      fields: [
        { name: 'Time', type: FieldType.time, values: times, config: {} },
        { name, type: FieldType.number, values: shown, config: configOf(panel, name) },
      ],
    });
    frame.fields.forEach((field) => { field.display = getDisplayProcessor({ field, theme }); });
    frame.fields[1].state = { seriesIndex: i, displayName: name };
    return frame;
  });
}

function Figure({ panel, width, height }) {
  const [series] = seriesOf(panel);
  const config = configOf(panel, panel.title);
  const last = series?.values.at(-1);
  const field = { name: panel.title, type: FieldType.number, values: [], config };
  const shown = last && !Number.isNaN(last[1]) && last[0] > to - 3000
    ? getDisplayProcessor({ field, theme })(last[1]) : { text: config.noValue, numeric: NaN, color: theme.colors.text.disabled };
  return <BigValue value={shown} width={width} height={height} theme={theme} colorMode="background" graphMode="none" textMode="value" justifyMode="auto" />;
}

function Gauges({ panel, width, height }) {
  const all = seriesOf(panel).map((s) => ({ ...s, last: s.values.at(-1)[1] })).sort((a, b) => b.last - a.last);
  const each = Math.min(64, height / all.length);
  return all.map(({ name, last }) => {
    const config = configOf(panel, name);
    const display = getDisplayProcessor({ field: { name, type: FieldType.number, values: [], config }, theme });
    return <BarGauge key={name} width={width} height={each - 8} theme={theme} field={config} display={display}
      value={{ ...display(last), title: name }} orientation={VizOrientation.Horizontal} displayMode="basic" namePlacement="top" showUnfilled itemSpacing={8} />;
  });
}

function Body({ panel, width, height }) {
  if (panel.type === 'stat') return <Figure {...{ panel, width, height }} />;
  if (panel.type === 'bargauge') return <Gauges {...{ panel, width, height }} />;
  const frames = framesOf(panel);
  if (frames.length === 0) {
    return <div style={{ color: theme.colors.text.secondary, paddingTop: height / 2 - 20, textAlign: 'center' }}>No data</div>;
  }
  return <TimeSeries frames={frames} width={width} height={height} timeRange={range} timeZone="utc" legend={panel.options.legend} />;
}

function Panel({ panel }) {
  const { x, y, w, h } = panel.gridPos;
  const column = width / 24;
  const place = { position: 'absolute', left: x * column + 4, top: y * cell + 4 };
  if (panel.type === 'row') {
    return <div style={{ ...place, fontSize: 16, fontWeight: 500, color: theme.colors.text.primary, paddingTop: 6 }}>⌄ {panel.title}</div>;
  }
  return (
    <div style={place}>
      <PanelChrome title={panel.title} width={w * column - 8} height={h * cell - 8}>
        {(width, height) => <Body {...{ panel, width, height }} />}
      </PanelChrome>
    </div>
  );
}

document.body.style.background = theme.colors.background.canvas;
createRoot(document.getElementById('root')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    {dashboard.panels.map((panel) => <Panel key={panel.id} panel={panel} />)}
  </ThemeContext.Provider>,
);
