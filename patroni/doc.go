// Package patroni is the system that runs PostgreSQL: the configuration of this
// unit's member, the configuration that all members share, and Patroni's REST
// interface (https://patroni.readthedocs.io/en/latest/rest_api.html).
package patroni
