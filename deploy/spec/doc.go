// Package spec reads deploy.yaml: which hosts run an application, and by what
// policy it reaches them. It turns the file into values of package deploy and
// says, by line and column, what is wrong with it.
//
//	app: www
//	artifacts: s3://releases/www
//	groups:
//	  prod:
//	    select: role == "web" && env == "prod"
//	    config: staged
//
// A group's config is the name of a built-in one, the name of one under the
// file's configs, or a mapping written in place. What a written config leaves
// out is as in the built-in "staged".
package spec
