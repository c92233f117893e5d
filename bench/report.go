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

// A row has the results of one server at one task. Each slice has an element for each
// round. A ratio compares the first server of the task with this one: above 1 the
// first is better.
type row struct {
	task        task
	connections int
	peer        peer
	results     []result
	ratios      []float64 // of requests a second
	cpuRatios   []float64 // of requests in a second of processor time
}

// median returns the value in the middle, or the lower of two.
func median[T any, V cmp.Ordered](elements []T, value func(T) V) V {
	values := make([]V, len(elements))
	for i, v := range elements {
		values[i] = value(v)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

func (r *row) perSecond() float64 {
	return median(r.results, func(m result) float64 { return m.perSecond })
}

func ratio(rounds []float64) float64 { return median(rounds, func(v float64) float64 { return v }) }

// An about describes a run: the date, the machine, the software and the command.
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
		notes = append(notes, "tmpfs syncs for free, so the numbers of durable PUTs mean little. Choose another filesystem with -dir.")
	case noJournal:
		notes = append(notes, "Without a journal, durable PUTs do not cost what they cost on most machines. Choose another filesystem with -dir.")
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

// lacksJournal reports whether a device has an ext4 without a journal.
func lacksJournal(device string) bool {
	if target, err := filepath.EvalSymlinks(device); err == nil { // a link in /dev/mapper
		device = target
	}
	_, err := os.Stat("/proc/fs/ext4/" + filepath.Base(device))
	journals, _ := filepath.Glob("/proc/fs/jbd2/" + filepath.Base(device) + "-*")
	return err == nil && len(journals) == 0
}

// markdown returns the report, with a table.
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
	fmt.Fprintf(&b, "Medians of %d rounds. The others of each group are compared with its first server, within a round.\n"+
		"*×* is how many times as many requests the first server answered in a second.\n"+
		"*CPU ×* is how many requests the first server answered in the processor time that this one needs for one.\n\n", len(rows[0].results))
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

// svg returns a bar chart of the rows with the most connections. Each task is a group,
// whose fastest server fills the width.
func svg(a about, rows []*row) string {
	const (
		width, left, right = 760, 190, 80
		bar, gap, heading  = 14, 4, 30
	)
	connections := 0
	for _, r := range rows {
		connections = max(connections, r.connections)
	}
	fastest := map[string]float64{} // requests a second, by task
	for _, r := range rows {
		if r.connections == connections {
			fastest[r.task.name] = max(fastest[r.task.name], r.perSecond())
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
		length := r.perSecond() / fastest[last] * (width - left - right)
		fmt.Fprintf(&body, "<text class=\"name\" x=\"%d\" y=\"%d\">%s</text>\n", left-8, y+bar-3, html.EscapeString(r.peer.name))
		fmt.Fprintf(&body, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>\n", class, left, y, length, bar)
		fmt.Fprintf(&body, "<text x=\"%.1f\" y=\"%d\">%.0f</text>\n", left+length+6, y+bar-3, r.perSecond())
		y += bar + gap
	}
	height := y + 16
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="Requests a second, imaged and other servers">
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
<text class="title" x="8" y="18">Requests a second, %d connections</text>
<text class="small" x="8" y="34">%s</text>
%s</svg>
`, width, height, connections, html.EscapeString(a.date+". "+a.machine+". "+a.software), body.String())
}
