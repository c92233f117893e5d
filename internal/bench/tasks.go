package main

import (
	"path/filepath"
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

// A task is work for several servers that promise the same.
type task struct {
	name  string
	kind  kind
	size  int
	peers []peer // the first is the one that the others are compared with
}

// A peer is a server that can do a task.
type peer struct {
	name      string
	program   string // "" for those in goServers
	layout    layout
	multipart bool
}

// A layout is where a server has its images, in its URLs and in its directory.
type layout int

const (
	imageDirs layout = iota // a directory for each
	imagesAPI               // in directories too, but at /images/{id}
	flat                    // all in one directory
	bucket                  // in a bucket of S3, which has no files that others could read
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
	return filepath.Join(id, "image.png")
}

// tasks returns all there is to measure, with these builds of imaged.
func tasks(builds []string, nginxProgram, minioProgram string) []task {
	var imaged, forms, nginx, minio []peer
	for _, build := range builds {
		imaged = append(imaged, peer{name: filepath.Base(build), program: build, layout: imagesAPI})
		forms = append(forms, peer{name: filepath.Base(build) + ", multipart", program: build, layout: imagesAPI, multipart: true})
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
			slices.Concat(imaged, forms, minio, []peer{{name: "floor: PUT"}, {name: "floor: PUT, proven"}, {name: "floor: PUT, syncs as MinIO"}})})
	}
	for _, size := range putSizes {
		all = append(all, task{"PUT " + sizeName(size) + " without syncs", put, size,
			slices.Concat([]peer{{name: "imagestore, NoSync", layout: imagesAPI}}, nginx,
				[]peer{{name: "x/net/webdav", layout: flat}, {name: "floor: PUT, no syncs"}, {name: "floor: PUT, proven, no syncs"}})})
	}
	return all
}
