package main

import (
	"context"

	"google.golang.org/protobuf/proto"

	controlv1 "github.com/groundswell/groundswell/proto/control/v1"
)

// hostPage is how many hosts are asked for at once.
const hostPage = 1000

// allHosts lists every host that matches, page by page: one answer of 30,000 would be
// longer than a coordinator hands on.
func allHosts(
	ctx context.Context, cl *client, req *controlv1.ListHostsRequest,
) (*controlv1.ListHostsResponse, error) {
	page := proto.CloneOf(req)
	page.PageSize = hostPage
	all := &controlv1.ListHostsResponse{}
	for {
		out, err := call(ctx, cl, controlv1.ControlServiceClient.ListHosts, page)
		if err != nil {
			return nil, err
		}
		all.Hosts = append(all.Hosts, out.Hosts...)
		if page.Page = out.NextPage; page.Page == "" {
			return all, nil
		}
	}
}
