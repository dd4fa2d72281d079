// Package board is the dashboard, as a table of panels from which the JSON for
// Grafana is made.
package board

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// SchemaVersion is Grafana's version of the model.
const SchemaVersion = 42

type object = map[string]any

// row is a heading and the panels below it, from left to right.
type row struct {
	title  string
	panels []panel
}

// panel is one picture.
type panel struct {
	kind          string // timeseries unless set
	title         string
	description   string
	width, height int
	unit          string
	empty         string // shown where the answer is empty
	targets       []target
	steps         []step            // thresholds
	colours       map[string]string // by legend: all of them, or none
	dashed        string            // the legend of a limit, which is not stacked
	look          look
	links         []object
}

// look is how a timeseries is drawn.
type look int

const (
	lines look = iota
	stacked
	bars
	steps
)

// target is a query, and how its answers are called.
type target struct {
	expr, legend string
	exemplars    bool
}

// step is a colour from a value on.
type step struct {
	from   float64
	colour string
}

// JSON is the dashboard as Grafana imports it.
func JSON() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(object{
		"uid": "sqllease", "title": "sqllease: connections of database/sql",
		"description": "How long callers wait for a connection, who has the connections, and why connections end.",
		"tags":        []string{"sqllease", "database", "go"},
		"timezone":    "", "editable": true, "graphTooltip": 1, "fiscalYearStartMonth": 0, "weekStart": "",
		"refresh": "30s", "time": object{"from": "now-1h", "to": "now"}, "timepicker": object{},
		"schemaVersion": SchemaVersion, "version": 2, "links": []object{},
		"panels": panels(), "templating": object{"list": variables()}, "annotations": object{"list": annotations()},
	})
	return out.Bytes(), err
}

var prometheus = object{"type": "prometheus", "uid": "${datasource}"}

// panels places the rows below each other.
func panels() (out []object) {
	y := 0
	for _, r := range rows() {
		out = append(out, object{
			"id": len(out) + 1, "type": "row", "title": r.title, "collapsed": false, "panels": []object{},
			"gridPos": object{"x": 0, "y": y, "w": 24, "h": 1},
		})
		y++
		x, height := 0, 0
		for _, p := range r.panels {
			if x+p.width > 24 {
				x, y, height = 0, y+height, 0
			}
			out = append(out, p.json(len(out)+1, object{"x": x, "y": y, "w": p.width, "h": p.height}))
			x, height = x+p.width, max(height, p.height)
		}
		y += height
	}
	return out
}

func (p panel) json(id int, place object) object {
	kind := p.kind
	if kind == "" {
		kind = "timeseries"
	}
	defaults := object{"unit": p.unit, "min": 0, "links": p.links, "color": object{"mode": "palette-classic"}}
	if p.links == nil {
		defaults["links"] = []object{}
	}
	if p.empty != "" {
		defaults["noValue"] = p.empty
	}
	if p.steps != nil {
		values := []object{{"value": nil, "color": "green"}}
		for _, s := range p.steps {
			values = append(values, object{"value": s.from, "color": s.colour})
		}
		defaults["thresholds"] = object{"mode": "absolute", "steps": values}
		defaults["color"] = object{"mode": "thresholds"}
	}
	if kind == "bargauge" {
		defaults["max"] = 1
	}
	if kind == "timeseries" {
		custom := p.look.custom()
		if p.unit != "s" && p.unit != "percentunit" {
			custom["axisSoftMax"] = 1 // nothing of 0 to 100 looks like something
		}
		defaults["custom"] = custom
		if p.look == bars {
			defaults["decimals"] = 0 // an increase is extrapolated, and nothing happens 1.01 times
		}
	}
	targets := []object{}
	for i, t := range p.targets {
		one := object{"refId": string(rune('A' + i)), "datasource": prometheus, "expr": t.expr, "legendFormat": t.legend}
		if kind == "timeseries" {
			one["range"], one["exemplar"] = true, t.exemplars
		} else {
			one["instant"] = true
		}
		targets = append(targets, one)
	}
	return object{
		"id": id, "type": kind, "title": p.title, "description": p.description, "gridPos": place, "datasource": prometheus,
		"targets": targets, "options": options(kind),
		"fieldConfig": object{"defaults": defaults, "overrides": p.overrides()},
	}
}

func (l look) custom() object {
	custom := object{
		"drawStyle": "line", "lineWidth": 1, "lineInterpolation": "linear", "fillOpacity": 0, "showPoints": "auto", "pointSize": 4,
		"spanNulls": false, "axisBorderShow": false,
		"stacking": object{"mode": "none", "group": "A"},
	}
	switch l {
	case stacked:
		custom["stacking"], custom["fillOpacity"] = object{"mode": "normal", "group": "A"}, 40
	case bars:
		custom["drawStyle"], custom["fillOpacity"] = "bars", 60
		custom["stacking"] = object{"mode": "normal", "group": "A"}
	case steps:
		custom["lineInterpolation"] = "stepAfter"
	}
	return custom
}

// overrides are the colours of the series, and the look of the limit.
func (p panel) overrides() []object {
	out := []object{}
	for _, t := range slices.Sorted(maps.Keys(p.colours)) {
		properties := []object{{"id": "color", "value": object{"mode": "fixed", "fixedColor": p.colours[t]}}}
		if t == p.dashed {
			properties = append(properties,
				object{"id": "custom.stacking", "value": object{"mode": "none", "group": "A"}},
				object{"id": "custom.fillOpacity", "value": 0},
				object{"id": "custom.lineWidth", "value": 2},
				object{"id": "custom.lineStyle", "value": object{"fill": "dash", "dash": []int{10, 5}}})
		}
		out = append(out, object{"matcher": object{"id": "byName", "options": t}, "properties": properties})
	}
	return out
}

func options(kind string) object {
	last := object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false}
	switch kind {
	case "stat":
		return object{
			"reduceOptions": last, "colorMode": "background", "graphMode": "none", "justifyMode": "auto",
			"textMode": "value", "wideLayout": true, "showPercentChange": false, "percentChangeColorMode": "standard", "orientation": "auto",
		}
	case "bargauge":
		return object{
			"reduceOptions": last, "displayMode": "basic", "valueMode": "color", "namePlacement": "top", "showUnfilled": true,
			"sizing": "auto", "minVizWidth": 8, "minVizHeight": 16, "maxVizHeight": 40, "orientation": "horizontal",
			"legend": object{"displayMode": "list", "placement": "bottom", "showLegend": false, "calcs": []string{}},
		}
	}
	return object{
		"legend":  object{"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []string{}},
		"tooltip": object{"mode": "multi", "sort": "desc"},
	}
}

// variables are what the reader chooses. They come from a metric that every
// pool has, with a limit or without.
func variables() []object {
	const always = "db_client_connection_pending_requests"
	return []object{
		source("datasource", "Data source", "prometheus"),
		choice("job", "Service", "label_values("+always+", job)"),
		choice("instance", "Instance", `label_values(`+always+`{job=~"$job"}, instance)`),
		choice("pool", "Pool", `label_values(`+always+`{job=~"$job", instance=~"$instance"}, db_client_connection_pool_name)`),
		source("traces", "Traces", "jaeger"),
		one("service", "Service in traces", `label_values(target_info{job=~"$job"}, service_name)`),
	}
}

func source(name, label, plugin string) object {
	return object{
		"name": name, "label": label, "type": "datasource", "query": plugin, "refresh": 1, "regex": "",
		"multi": false, "includeAll": false, "options": []object{}, "hide": 0, "skipUrlSync": false,
	}
}

// choice is a variable of which several values, or all, can be chosen.
func choice(name, label, query string) object {
	v := one(name, label, query)
	v["multi"], v["includeAll"], v["allValue"] = true, true, ".*"
	v["current"] = object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}
	return v
}

func one(name, label, query string) object {
	return object{
		"name": name, "label": label, "type": "query", "datasource": prometheus, "definition": query,
		"query":   object{"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
		"refresh": 2, "sort": 1, "multi": false, "includeAll": false, "allowCustomValue": true, "options": []object{}, "regex": "",
		"hide": 0, "skipUrlSync": false,
	}
}

// annotations mark when alerts fire.
func annotations() []object {
	return []object{
		{
			"builtIn": 1, "datasource": object{"type": "grafana", "uid": "-- Grafana --"}, "enable": true, "hide": true,
			"iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
		},
		{
			"name": "Alerts", "datasource": prometheus, "enable": true, "hide": false, "iconColor": "red",
			"expr":        `ALERTS{alertname=~"Sqllease.*", alertstate="firing", ` + chosen + `}`,
			"titleFormat": "{{alertname}}", "textFormat": "{{db_client_connection_pool_name}} of {{instance}}",
			"tagKeys": "severity", "step": "30s", "useValueForTime": false,
		},
	}
}

// tracesOf is a link to the traces that have a span of an operation, of the
// time that the dashboard shows. A query in Explore is JSON in the address.
func tracesOf(title, operation, longer string) object {
	query := `{"refId":"A","datasource":{"type":"jaeger","uid":"${traces}"},"queryType":"search",` +
		`"service":"${service}","operation":"` + operation + `","minDuration":"` + longer + `","limit":50}`
	panes := `{"a":{"datasource":"${traces}","queries":[` + query + `],"range":{"from":"${__from}","to":"${__to}"}}}`
	return object{"title": title, "url": "/explore?schemaVersion=1&panes=" + escapeAround(panes), "targetBlank": true}
}

// escapeAround escapes a text for an address, but for the variables in it.
func escapeAround(text string) string {
	var out strings.Builder
	for text != "" {
		before, rest, found := strings.Cut(text, "${")
		out.WriteString(url.QueryEscape(before))
		if !found {
			break
		}
		name, after, _ := strings.Cut(rest, "}")
		out.WriteString("${" + name + "}")
		text = after
	}
	return out.String()
}
