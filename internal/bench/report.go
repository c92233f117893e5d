package main

import (
	"cmp"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// A row is one server at one task: its results and, for each round, how many
// times as good the first server of the task was.
type row struct {
	task        task
	connections int
	peer        peer
	results     []result
	ratios      []float64 // of requests a second
	cpuRatios   []float64 // of what requests cost the server
}

// median returns the one in the middle, or the lower of two: always one that
// was measured.
func median[T any, V cmp.Ordered](of []T, value func(T) V) V {
	values := make([]V, len(of))
	for i, v := range of {
		values[i] = value(v)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

func (r *row) perSecond() float64 {
	return median(r.results, func(m result) float64 { return m.perSecond })
}

func ratio(rounds []float64) float64 { return median(rounds, func(v float64) float64 { return v }) }

// about says what was measured where.
type about struct {
	date, machine, software, command string
	notes                            []string
}

var cpuModel = regexp.MustCompile(`(?m)^model name\s*:\s*(.+)$`)

func describe(dir, pinned string, command, notes []string) about {
	cpu := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	if found := cpuModel.FindSubmatch(info); found != nil {
		cpu = string(found[1])
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	notes = slices.Clone(notes)
	filesystem := filesystemOf(dir)
	switch filesystem {
	case "tmpfs":
		notes = append(notes, "On tmpfs syncs cost nothing, so durable PUTs say little: -dir chooses another filesystem.")
	case noJournal:
		notes = append(notes, "Without a journal, durable PUTs cost other than on most machines: -dir chooses another filesystem.")
	}
	return about{
		date:     time.Now().UTC().Format("2006-01-02"),
		machine:  fmt.Sprintf("%s, %d cores, %s", cpu, runtime.NumCPU(), pinned),
		software: fmt.Sprintf("%s %s, %s, %s", runtime.GOOS, strings.TrimSpace(string(kernel)), filesystem, runtime.Version()),
		command:  strings.Join(command, " "),
		notes:    notes,
	}
}

// filesystemOf returns the type of the filesystem that a directory is on.
func filesystemOf(dir string) string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	best, kind := "", "unknown filesystem"
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		at := strings.TrimSuffix(fields[1], "/") + "/"
		if strings.HasPrefix(dir+"/", at) && len(at) >= len(best) {
			best, kind = at, fields[2]
			if kind == "ext4" && lacksJournal(fields[0]) {
				kind = noJournal
			}
		}
	}
	return kind
}

const noJournal = "ext4 without a journal"

// lacksJournal says whether a device has an ext4 without a journal.
func lacksJournal(device string) bool {
	if target, err := filepath.EvalSymlinks(device); err == nil { // /dev/mapper has links
		device = target
	}
	_, err := os.Stat("/proc/fs/ext4/" + filepath.Base(device))
	journals, _ := filepath.Glob("/proc/fs/jbd2/" + filepath.Base(device) + "-*")
	return err == nil && len(journals) == 0
}

// markdown returns everything as a table.
func markdown(a about, rows []*row) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s. %s. %s.\n\n", a.date, a.machine, a.software)
	fmt.Fprintf(&b, "    %s\n\n", a.command)
	for _, note := range a.notes {
		fmt.Fprintf(&b, "%s\n\n", note)
	}
	if len(rows) == 0 {
		b.WriteString("Nothing was measured.\n")
		return b.String()
	}
	fmt.Fprintf(&b, "Medians of %d rounds. × says how many times as many requests the first server of each group answered in a second\n"+
		"as this one, CPU × how many requests it answered in the core's time that this one needs for one; both within a round.\n\n", len(rows[0].results))
	b.WriteString("| work | connections | server | requests/s | × | p50 | p99 | CPU/request | CPU × | peak memory |\n")
	b.WriteString("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for i, r := range rows {
		work, connections := "", ""
		if i == 0 || rows[i-1].task.name != r.task.name || rows[i-1].connections != r.connections {
			work, connections = r.task.name, fmt.Sprint(r.connections)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %.0f | %.2f | %s | %s | %.1f µs | %.2f | %.0f MiB |\n", work, connections, r.peer.name, r.perSecond(), ratio(r.ratios),
			milliseconds(median(r.results, func(m result) time.Duration { return m.p50 })),
			milliseconds(median(r.results, func(m result) time.Duration { return m.p99 })),
			float64(median(r.results, func(m result) time.Duration { return m.cpu }))/1000,
			ratio(r.cpuRatios),
			float64(median(r.results, func(m result) int64 { return m.peak }))/(1<<20))
	}
	return b.String()
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.3g ms", d.Seconds()*1000)
}

// svg returns the rows with the most connections as a bar chart, one group for
// each task, the fastest of which fills the width.
func svg(a about, rows []*row) string {
	const (
		width, left, right = 760, 190, 80
		bar, gap, heading  = 14, 4, 30
	)
	connections := 0
	for _, r := range rows {
		connections = max(connections, r.connections)
	}
	groups := map[string]float64{} // and the fastest in each
	for _, r := range rows {
		if r.connections == connections {
			groups[r.task.name] = max(groups[r.task.name], r.perSecond())
		}
	}
	var body strings.Builder
	y, last := 44, ""
	for _, r := range rows {
		if r.connections != connections {
			continue
		}
		if r.task.name != last {
			last = r.task.name
			y += heading
			fmt.Fprintf(&body, "<text class=\"work\" x=\"%d\" y=\"%d\">%s</text>\n", left, y-6, html.EscapeString(last))
		}
		class := "peer"
		switch {
		case strings.HasPrefix(r.peer.name, "floor"):
			class = "floor"
		case r.peer.layout == imagesAPI:
			class = "own"
		}
		length := r.perSecond() / groups[last] * (width - left - right)
		fmt.Fprintf(&body, "<text class=\"name\" x=\"%d\" y=\"%d\">%s</text>\n", left-8, y+bar-3, html.EscapeString(r.peer.name))
		fmt.Fprintf(&body, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>\n", class, left, y, length, bar)
		fmt.Fprintf(&body, "<text x=\"%.1f\" y=\"%d\">%.0f</text>\n", left+length+6, y+bar-3, r.perSecond())
		y += bar + gap
	}
	height := y + 16
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="Requests per second, imaged and others">
<style>
svg { background: #fff }
text { font: 12px sans-serif; fill: #333 }
.title, .work { font-weight: bold }
.small { font-size: 10px; fill: #777 }
.name { text-anchor: end }
.own { fill: #1a73a8 }
.peer { fill: #b9c4cc }
.floor { fill: #e8b23a }
@media (prefers-color-scheme: dark) {
	svg { background: #0d1117 }
	text { fill: #ddd }
	.small { fill: #999 }
	.peer { fill: #5b6770 }
}
</style>
<text class="title" x="8" y="18">Requests per second, %d connections</text>
<text class="small" x="8" y="34">%s</text>
%s</svg>
`, width, height, connections, html.EscapeString(a.date+". "+a.machine+". "+a.software), body.String())
}
