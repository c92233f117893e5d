package main

import (
	"path/filepath"
	"regexp"
	"slices"
)

type kind int

const (
	get kind = iota
	conditionalGet
	put
)

var (
	getSizes = []int{8 << 10, 64 << 10, 1 << 20, 8 << 20}
	putSizes = []int{8 << 10, 1 << 20}
)

// A task is work for several servers with the same promise.
type task struct {
	name  string
	kind  kind
	size  int
	peers []peer // the first is compared with each of the others
}

// A peer is a server to be measured.
type peer struct {
	name      string
	program   string // "" for a name in goServers
	layout    layout
	multipart bool
}

// A layout is the URL and the file that a server gives an image.
type layout int

const (
	imageDirs layout = iota // /{id}/image, and the file of that name
	imagesAPI               // /images/{id}, and the same file
	flat                    // /{id}.png, and the file of that name
	bucket                  // /images/{id}.png, in a bucket without such files
)

func (p peer) url(id string) string {
	switch p.layout {
	case imagesAPI:
		return "/images/" + id
	case bucket:
		return "/images/" + id + ".png"
	}
	return "/" + filepath.ToSlash(p.file(id))
}

func (p peer) file(id string) string {
	if p.layout == flat {
		return id + ".png"
	}
	return filepath.Join(id, "image")
}

// A build is a program imaged, of this or another commit.
type build struct{ name, program string }

// tasks returns everything that can be measured with these programs. nginxProgram
// and minioProgram may be "".
func tasks(builds []build, nginxProgram, minioProgram string) []task {
	var imaged, forms, nginx, minio []peer
	for _, b := range builds {
		imaged = append(imaged, peer{name: b.name, program: b.program, layout: imagesAPI})
		forms = append(forms, peer{name: b.name + ", multipart", program: b.program, layout: imagesAPI, multipart: true})
	}
	if nginxProgram != "" {
		nginx = []peer{{name: "nginx", program: nginxProgram}}
	}
	if minioProgram != "" {
		minio = []peer{{name: "MinIO", program: minioProgram, layout: bucket}}
	}
	mounted := []peer{{name: "imagestore, mounted", layout: imagesAPI}}
	fileServers := []peer{{name: "http.FileServer"}, {name: "afero.HttpFs"}, {name: "x/net/webdav"}}

	var all []task
	for _, size := range getSizes {
		all = append(all, task{"GET " + sizeName(size), get, size,
			slices.Concat(imaged, mounted, nginx, minio, fileServers, []peer{{name: "floor: as fresh"}, {name: "floor: from memory"}})})
	}
	all = append(all, task{"GET, 304", conditionalGet, getSizes[0],
		slices.Concat(imaged, nginx, minio, fileServers[:1], []peer{{name: "floor: 304 as fresh"}, {name: "floor: only 304"}})})
	for _, size := range putSizes {
		all = append(all, task{"durable PUT " + sizeName(size), put, size,
			slices.Concat(imaged, forms, minio, []peer{{name: "floor: PUT"}, {name: "floor: PUT, verified"}, {name: "floor: PUT, syncs as MinIO"}})})
	}
	for _, size := range putSizes {
		all = append(all, task{"PUT " + sizeName(size) + " without syncs", put, size,
			slices.Concat([]peer{{name: "imagestore, NoSync", layout: imagesAPI}}, nginx,
				[]peer{{name: "x/net/webdav", layout: flat}, {name: "floor: PUT, no syncs"}, {name: "floor: PUT, verified, no syncs"}})})
	}
	return all
}

// selectTasks returns the tasks whose names match run, each with its first server
// and those whose names match servers.
func selectTasks(all []task, run, servers *regexp.Regexp) (selected []task) {
	for _, t := range all {
		if !run.MatchString(t.name) {
			continue
		}
		peers := t.peers[:1:1]
		for _, p := range t.peers[1:] {
			if servers.MatchString(p.name) {
				peers = append(peers, p)
			}
		}
		t.peers = peers
		selected = append(selected, t)
	}
	return selected
}
